"""A file that cannot be written is named as the user knows it, and nothing half-written stays."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from f2d.replacing import WriteError, naming, remove_leftovers, replacing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits and permissions")

# in a process of its own, whose limits and permissions end with it; the disk is full after 1000 bytes
CHILD = """
import os, resource, shutil, sys
from pathlib import Path
from f2d.replacing import replacing

path, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
if kind == "read-only":
    path.parent.chmod(0o555)
    if os.getuid() == 0:
        os.setuid(65534)  # root may write anywhere
try:
    with replacing(path) as part:
        if kind == "deleted":
            shutil.rmtree(path.parent)
        part.write_bytes(bytes(5000))
        if kind == "deleted before the end":
            shutil.rmtree(path.parent)
except OSError as error:
    print(type(error).__name__, error.errno, error)
"""


def test_contents_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """After a power cut an empty file could have the name of a finished output, which is skipped as done."""
    on_disk, renamed = {}, []

    def fsync(descriptor):
        found = os.fstat(descriptor)
        on_disk[found.st_ino] = found.st_size

    def replace(source, target, whole=os.replace):
        renamed.append(on_disk.get(os.stat(source).st_ino))
        whole(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with replacing(tmp_path / "a.png") as part:
        part.write_bytes(bytes(5000))
    assert renamed == [5000] and (tmp_path / "a.png").read_bytes() == bytes(5000)


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("full", "File too large"),
        ("read-only", "Permission denied"),
        ("deleted", "No such file or directory"),
        ("deleted before the end", "No such file or directory"),
    ],
)
def test_the_error_names_the_file_of_the_user(tmp_path, kind, reason):
    path = tmp_path / "out" / "last.ckpt"
    path.parent.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o755)
    command = [sys.executable, "-c", CHILD, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
    kind_of, number, text = done.stdout.strip().split(" ", 2)
    assert (kind_of, os.strerror(int(number))) == ("WriteError", reason)
    assert text == f"{path}: cannot be written ({reason})"
    assert not path.parent.exists() or list(path.parent.iterdir()) == []


def test_a_full_disk_of_a_file_that_grows(tmp_path):
    """/dev/full takes no byte: the error, which comes when the file is closed, has no name of its own."""
    says = r"losses\.csv: cannot be written \(No space left on device\)"
    path = tmp_path / "losses.csv"
    with pytest.raises(WriteError, match=says), naming(path), open("/dev/full", "w") as file:
        file.write("1,0.5")


def test_errors_about_other_files_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"other\.png"), replacing(tmp_path / "out.png"):
        (tmp_path / "other.png").read_bytes()
    with pytest.raises(OSError, match=r"^in its own words$"), replacing(tmp_path / "out.png"):
        raise OSError("in its own words")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_those_of_ended_processes(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for folder in ("samples", "photos"):
        (tmp_path / folder).mkdir()
        for number in (ended.pid, os.getpid()):
            (tmp_path / folder / f".f2d-0123456789abcdef.{number}.part").touch()
    remove_leftovers([tmp_path / "photos" / "a.png"], [tmp_path / "samples"])
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.part"))
    own = f".f2d-0123456789abcdef.{os.getpid()}.part"
    both = sorted(f".f2d-0123456789abcdef.{number}.part" for number in (ended.pid, os.getpid()))
    assert left == [*(f"photos/{name}" for name in both), f"samples/{own}"]


def test_a_file_of_ones_own_is_tidied_first(tmp_path):
    with replacing(tmp_path / "a.html") as part:
        part.touch()
        name = part.name.rsplit(".", 2)[0]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"{name}.{ended.pid}.part").touch()
    with replacing(tmp_path / "a.html", alone=True) as part:
        part.write_text("page")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_state_that_does_not_fit_on_the_disk(tmp_path):
    resource = pytest.importorskip("resource")
    pytest.importorskip("lightning", reason="needs the [train] extra")
    torch = pytest.importorskip("torch")
    from f2d.training.callbacks import StateFile

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, before[1][1]))
    try:
        with pytest.raises(WriteError, match=r"last\.ckpt: cannot be written \(File too large\)"):
            StateFile().save_checkpoint({"weights": torch.zeros(10**6)}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert list(tmp_path.iterdir()) == []
