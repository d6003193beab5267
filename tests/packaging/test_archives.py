"""What the source archive and the wheel hold, and that one version is said everywhere."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from os import environ
from pathlib import Path

import pytest

import f2d
import f2d_kernels
from f2d_kernels import compiled

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("csrc", "f2d", "f2d_kernels", "packaging", "tests", "bench", "docs")
NEVER = r"\.(so|pyc|o|egg)$|__pycache__|cache/|/shared/|/runs/|/\.git|/\.venv"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout in which things lie that must not leave it."""
    folder = tmp_path_factory.mktemp("packaging") / "checkout"
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for file in ROOT.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copy(file, folder)
    for name in ("f2d_kernels/_cpu.so", "f2d/__pycache__/a.pyc", "shared/a.py", ".mypy_cache/a.json", "runs/a.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    return folder


def build(source: Path, what: str, target: Path) -> Path:
    """The archive that setuptools makes, "sdist" or "wheel", without the compiled part and without a warning."""
    code = f"from setuptools import build_meta as b; print(b.build_{what}({str(target)!r}))"
    skip = {"F2D_KERNELS_SKIP_CPP": "1", "F2D_KERNELS_SKIP_CUDA": "1"}
    target.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=source, env=environ | skip, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "byte-compiling is disabled" not in line]
    assert not [line for line in said if re.search("warning|deprecat", line, re.IGNORECASE)], done.stderr
    return target / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(checkout) -> Path:
    return build(checkout, "sdist", checkout.parent / "sdist")


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as content:
        return {name for name in content.namelist() if not name.endswith("/")}


def test_the_source_archive_has_all_sources_and_nothing_that_was_made_of_them(checkout, sdist):
    with tarfile.open(sdist) as content:
        names = {name.split("/", 1)[1] for name in content.getnames() if "/" in name}
    sources = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not re.search(NEVER, str(path.relative_to(ROOT)))
    }
    assert sources - names == set()
    assert {"LICENSE", "f2d/weights/LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "setup.py"} <= names
    assert [name for name in names if re.search(NEVER, f"/{name}")] == []


def test_a_wheel_of_the_source_archive_is_the_wheel_of_the_checkout(checkout, sdist, tmp_path):
    with tarfile.open(sdist) as content:
        content.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheels = [build(source, "wheel", tmp_path / name) for name, source in (("a", unpacked), ("b", checkout))]
    there = files_of(wheels[0])
    assert there == files_of(wheels[1])
    assert wheels[0].name == f"f2d-{f2d.__version__}-py3-none-any.whl"
    weights = {f"f2d/weights/{name}/model.safetensors" for name in ("f2d-lite", "resflow-lite")}
    assert {"f2d/py.typed", "f2d_kernels/py.typed", *weights} <= there
    assert "f2d/photographs/coffee.jpg" in there
    assert {name.split("/")[0] for name in there} == {"f2d", "f2d_kernels", f"f2d-{f2d.__version__}.dist-info"}
    assert [name for name in there if re.search(f"{NEVER}|golden", name)] == []


def test_one_version_is_said_everywhere():
    said = subprocess.run([sys.executable, "-m", "f2d", "--version"], capture_output=True, text=True, cwd=ROOT).stdout
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    built = compiled.build_info()
    assert said.split()[-1] == f2d.__version__ == f2d_kernels.__version__ == latest[1]
    assert built is None or built["version"] == f2d.__version__
