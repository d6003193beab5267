"""What visitors do who do not use the page: raw requests to a server that is there."""

import json
import os
import re
import secrets
import select
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import draw
from tests.app.sender import FORM, Sender

pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")
UPLOAD = 2**18


@pytest.fixture(scope="module")
def server(restorer):
    """(address's host and port, its folder)"""
    from f2d.app.limits import Limits
    from f2d.app.serve import serving

    with serving(restorer, "tiny", Limits(upload=UPLOAD, disk=3 * 2**20)) as address:
        yield re.search("//(.+?)/", address)[1], Path(os.environ["GRADIO_TEMP_DIR"])


def ask(server, method: str, path: str, body: Any = None, **headers) -> tuple[int, str]:
    connection = HTTPConnection(server[0], timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode(errors="replace")
    connection.close()
    return status, text


def upload(server, *contents: bytes) -> tuple[int, str]:
    part = '--x\r\nContent-Disposition: form-data; name="files"; filename="{}.png"\r\n\r\n'
    parts = [part.format(i).encode() + content + b"\r\n" for i, content in enumerate(contents)]
    form = "multipart/form-data; boundary=x"
    return ask(server, "POST", "/gradio_api/upload", b"".join([*parts, b"--x--\r\n"]), Content_Type=form)


def event(server, inputs: int, data: list) -> dict:
    """The end of the event of the page that takes so many inputs, asked with `data`."""
    config = json.loads(ask(server, "GET", "/config")[1])
    (index,) = (each["id"] for each in config["dependencies"] if each["backend_fn"] and len(each["inputs"]) == inputs)
    session = secrets.token_hex(5)
    body = json.dumps({"data": data, "fn_index": index, "session_hash": session}).encode()
    assert ask(server, "POST", "/gradio_api/queue/join", body, Content_Type="application/json")[0] == 200
    told = ask(server, "GET", f"/gradio_api/queue/data?session_hash={session}")[1]
    messages = [json.loads(line.removeprefix("data: ")) for line in told.splitlines() if line.startswith("data: ")]
    return next(message for message in messages if message["msg"] == "process_completed")


def restore(server, picture, steps=1, sampler="MC") -> dict:
    return event(server, 9, [picture, None, steps, sampler, 0, 1, 1, 1, 1])


def look(server, picture) -> dict:
    return event(server, 1, [picture])


META = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture
def picture(server, tmp_path) -> str:
    """The path of an upload."""
    status, text = upload(server, draw(tmp_path, "plain.png").read_bytes())
    assert status == 200
    return json.loads(text)[0]


def test_an_upload_is_restored(server, picture):
    for meta in ({}, META):
        found = restore(server, {"path": picture, **meta})
        assert found["success"] and "grey levels" in str(found["output"])
        assert look(server, {"path": picture, **meta})["success"]


@pytest.mark.parametrize("meta", [{}, META])
def test_what_is_not_an_upload_is_not_read(server, picture, tmp_path, meta):
    private, folder = draw(tmp_path, "plain.png"), server[1]
    before = set(folder.rglob("*"))
    up = folder / ".." / os.path.relpath(private, folder.parent)
    for path in (private, up, folder, folder / "none.png", "", 3, None, {"path": picture}):
        asked = {"path": str(path) if isinstance(path, Path) else path, **meta}
        for answer in (restore(server, asked), look(server, asked)):
            assert not answer["success"] and str(tmp_path) not in str(answer), asked
    assert set(folder.rglob("*")) == before


def test_no_other_host_is_asked(server, picture, monkeypatch):
    asked = []
    for name in ("gradio.processing_utils.async_ssrf_protected_download", "safehttpx.async_validate_url"):
        monkeypatch.setattr(name, lambda *values, **_: asked.append(values))
    url = {"path": "http://example.invalid/x.png", **META}
    assert not restore(server, url)["success"] and not look(server, url)["success"]
    assert not restore(server, {"path": picture}, steps=url)["success"]  # the others take paths as well
    assert restore(server, {"path": picture, "url": url["path"], **META})["success"]
    for path in ("file=http://example.invalid/x.png", "file=HTTPS://example.invalid/x.png", "proxy=http://hf.space/x"):
        for method in ("GET", "HEAD"):
            assert ask(server, method, f"/gradio_api/{path}")[0] == 404
    assert asked == []


def test_what_the_page_does_not_use_is_not_there(server):
    for path in ("process_recording", "component_server", "vibe-code", "stream/x", "call/x", "call/v2/x"):
        assert ask(server, "POST", f"/gradio_api/{path}", b"{}")[0] == 404, path
    assert ask(server, "GET", "/monitoring/summary")[0] == 403


def test_samplers_that_the_page_does_not_offer(server, picture):
    for sampler in ("EM", "mean"):
        assert not restore(server, {"path": picture}, sampler=sampler)["success"]


def test_the_size_is_of_the_whole_request(server):
    folder = server[1]
    before = list(folder.rglob("*"))
    status, text = upload(server, *(bytes([i]) * (UPLOAD // 2) for i in range(10)))
    assert (status, list(folder.rglob("*"))) == (413, before) and "one file at a time" in text
    assert ask(server, "POST", "/gradio_api/queue/join", bytes(2**20 + 1))[0] == 413


def test_an_oversized_upload_is_refused_from_its_header(server):
    """Five gigabytes are declared and none is sent: the answer is there, and the connection ends soon after it."""
    sender, start = Sender(server, f"Content-Length: {5 * 10**9}"), time.monotonic()
    status, text = sender.answer()
    assert status == 413 and "maximum allowed size of 0.3125 MiB" in text
    assert sender.is_closed() and time.monotonic() - start < 30


def test_who_sends_on_after_a_refusal_is_cut_off(server):
    from f2d.app.guard import LINGER

    sender = Sender(server, f"Content-Length: {5 * 10**9}")
    assert select.select([sender.socket], [], [], 60)[0]
    sent = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        while sent < 5 * 10**9:
            sender.socket.sendall(bytes(2**20))
            sent += 2**20
    assert sent < LINGER[0] + 64 * 2**20, sent  # and what the system's buffers took in


def test_a_body_in_chunks_is_taken_and_cut_at_the_limit(server, tmp_path):
    content = draw(tmp_path, "plain.png").read_bytes()
    sender = Sender(server, "Transfer-Encoding: chunked", "Connection: close")
    for part in (FORM, content, b"\r\n--x--\r\n", b""):
        sender.chunk(part)
    status, text = sender.answer()
    assert status == 200 and restore(server, {"path": json.loads(text)[0], **META})["success"]


@pytest.mark.parametrize("size", [2**12, 2**16])
def test_an_endless_body_in_chunks_is_cut_at_the_limit(server, size):
    """In small chunks gradio refuses the file first, in large ones the guard; the connection is closed after both."""
    before = set(server[1].rglob("*"))
    sender = Sender(server, "Transfer-Encoding: chunked")
    sender.chunk(FORM)
    sent = sender.send_until_refused(lambda: sender.chunk(bytes(size)), 10**5)
    assert UPLOAD <= sent * size < 10**5 * size
    status, text = sender.answer()
    assert status == 413 and "maximum allowed size" in text
    assert sender.is_closed() and files_left(server, before) == []


def test_an_upload_that_takes_too_long_is_cut_off(server, monkeypatch):
    """And it does not hold its room on the disk any longer."""
    monkeypatch.setattr("f2d.app.guard.PATIENCE", 0.5)
    before = set(server[1].rglob("*"))
    sender = Sender(server, "Content-Length: 1000")
    sender.socket.sendall(FORM)
    status, text = sender.answer()
    assert status == 408 and "took too long" in text
    assert files_left(server, before) == []


def test_an_upload_that_is_broken_off_leaves_nothing(server, capfd):
    before = set(server[1].rglob("*"))
    sender = Sender(server, f"Content-Length: {UPLOAD}")
    sender.socket.sendall(FORM + bytes(2**17))
    time.sleep(0.5)
    sender.socket.close()
    assert files_left(server, before) == []
    assert "Traceback" not in capfd.readouterr().err


def files_left(server, before: set[Path]) -> list[Path]:
    """Files that were not there before, once there are none any longer, or after ten seconds."""
    for _ in range(100):
        left = [path for path in set(server[1].rglob("*")) - before if path.is_file()]
        if not left:
            break
        time.sleep(0.1)
    return left


def test_a_full_folder_takes_no_upload(server, tmp_path):
    from f2d.app.disk import used

    content = draw(tmp_path, "plain.png").read_bytes()
    filling = server[1] / "filling"
    filling.write_bytes(bytes(3 * 2**20 - used(server[1]) - len(content)))
    status, text = upload(server, content)
    assert status == 507 and "no space" in text
    filling.unlink()
    assert upload(server, content)[0] == 200


def test_a_server_after_another_leaves_nothing(restorer, tmp_path, monkeypatch):
    from f2d.app.limits import Limits
    from f2d.app.serve import serving

    monkeypatch.setattr("gradio.routes.DEFAULT_TEMP_DIR", str(tmp_path / "before"))
    folders = []
    for _ in range(2):
        with serving(restorer, "tiny", Limits()):
            folders.append(Path(os.environ["GRADIO_TEMP_DIR"]))
    assert folders[0] != folders[1] and not any(folder.exists() for folder in folders)
    assert list(tmp_path.iterdir()) == []
