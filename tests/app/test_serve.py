"""The command: what it refuses in one line, and that nothing is left of it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest

from f2d.app.serve import check_free, licence_of
from tests.cli.conftest import assert_one_line_error, f2d, model  # noqa: F401


@pytest.fixture
def taken():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_without_gradio(f2d, monkeypatch):  # noqa: F811
    monkeypatch.setattr("f2d.cli.app_command.find_spec", lambda name: None)
    assert_one_line_error(f2d("app"), 2, "needs gradio", 'pip install "f2d[app]"')


@pytest.mark.parametrize(
    "options, words",
    [
        (("--max-memory", "much"), ("--max-memory", "4G")),
        (("--threads", "0"), ("--threads",)),
        (("--max-megapixels", "0"), ("--max-megapixels",)),
        (("--host", "no.such.host.invalid"), ("no.such.host.invalid",)),
        (("nothing-of-this-name",), ("nothing-of-this-name", "f2d-lite")),
    ],
)
def test_wrong_options(f2d, monkeypatch, options, words):  # noqa: F811
    monkeypatch.setattr("f2d.app.serve.serving", lambda *_, **__: pytest.fail("a server was started"))
    assert_one_line_error(f2d("app", *options), 2, *words)


def test_a_port_that_is_taken(f2d, taken):  # noqa: F811
    assert_one_line_error(f2d("app", "--port", taken), 2, str(taken), "--port")
    check_free("127.0.0.1", 0)


def test_the_licence_is_that_of_the_weights(model, tmp_path, monkeypatch):  # noqa: F811
    assert "research" in licence_of("f2d-lite").lower()
    folder = shutil.copytree(model, tmp_path / "mine")
    assert licence_of(str(folder)) == ""
    (folder / "LICENSE").write_text("mine")
    assert licence_of(str(folder)) == "mine"
    asked = []
    monkeypatch.setattr("f2d.checkpoints.hub.fetch", lambda *names, **options: asked.append(options) or folder)
    assert licence_of("owner/name") == "mine" and asked[0]["local_files_only"]


def test_the_status_is_shown_while_the_server_starts(f2d, model, monkeypatch):  # noqa: F811
    happened = []

    @contextmanager
    def told(name, *_, **__):
        happened.append(f"{name} begins")
        yield "http://somewhere/"
        happened.append(f"{name} ends")

    monkeypatch.setattr("f2d.cli.app_command.err.status", told)
    monkeypatch.setattr("f2d.app.serve.serving", lambda *_, **__: told("server"))
    monkeypatch.setattr("f2d.app.serve.wait", lambda: happened.append("page"))
    found = f2d("app", model, "--device", "cpu")
    assert found.exit_code == 0 and "http://somewhere/" in found.output, found.output
    assert happened == ["starting begins", "server begins", "starting ends", "page", "server ends"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupted_it_leaves_nothing(model, tmp_path):  # noqa: F811
    pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")
    # as of a terminal: a shell in the background has its children ignore the interrupt
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import f2d.cli.app as a; a.main()"
    command = [sys.executable, "-c", start, "app", model, "--device", "cpu"]
    settings = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as server:
        lines = [server.stdout.readline() for _ in range(2)]
        address = lines[1].split()[0]
        with urllib.request.urlopen(address) as page:
            assert page.status == 200 and b"Restore a photograph" in page.read()
        assert [path.name[:8] for path in tmp_path.iterdir()] == ["f2d-app-"]
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 130 and errors.splitlines()[-1] == "interrupted", errors
    assert list(tmp_path.iterdir()) == []
