"""Ctrl-C: one line, exit code 130, no traceback and no half file, whenever it comes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRESS = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
RUN = "from f2d.cli.app import main\nmain()\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def f2d(code: str, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess:
    """`code`, which runs the command, as a process whose SIGINT is as a terminal's; `path`: modules found first."""
    paths = [str(p) for p in (path, ROOT) if p is not None]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def assert_interrupted(done: subprocess.CompletedProcess) -> None:
    assert (done.returncode, done.stderr) == (130, "interrupted\n"), done


@pytest.mark.parametrize("module", ["typer", "numpy", "torch"])
@pytest.mark.parametrize("swallowed", [False, True])
def test_during_an_import(tmp_path, photo, module, swallowed):
    """Compiled modules turn the interrupt into an ImportError now and then."""
    fake = f"try: {PRESS}except KeyboardInterrupt: raise ImportError\n"
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / f"{module}.py").write_text(fake if swallowed else PRESS)
    assert_interrupted(f2d(RUN, "restore", photo, "-o", tmp_path / "out", path=tmp_path / "fakes"))


@pytest.mark.parametrize("moment", ["loading", "restoring", "writing"])
def test_during_the_work(tmp_path, photo, model, moment):
    patches = {
        "loading": "from f2d.nets import F2DNet\nF2DNet.from_pretrained = press",
        "restoring": "import f2d.engine.restorer\nf2d.engine.restorer.restore_tensor = press",
        "writing": "from pathlib import Path\n"
        "Path.write_bytes = lambda path, data: (open(path, 'wb').write(b'half'), press())",
    }
    code = f"def press(*_, **__): {PRESS}{patches[moment]}\n{RUN}"
    assert_interrupted(f2d(code, "restore", photo, "-o", tmp_path / "out", "--model", model))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_uninterrupted_command_keeps_its_exit_code(tmp_path):
    assert f2d(RUN, "--version").returncode == 0
    assert f2d(RUN, "restore", tmp_path / "nope.png", "-o", tmp_path / "out").returncode == 1
    assert f2d(RUN, "restore").returncode == 2
