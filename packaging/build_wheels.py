"""Build everything that is released into dist/: source archive, pure wheel, and a compiled CPU wheel for each Python.

    python packaging/build_wheels.py [PYTHON ...]      # make wheels: the Pythons of .venv and of PYTHONS

The pure wheel is the result of an isolated build, which has no PyTorch. A compiled wheel has `_cpu.so`, which does not
depend on Python and works with every PyTorch from 2.10 on (stable ABI), and `_build_info`, a pybind11 module that needs
one wheel per Python. The objects are compiled once, against the headers of the PyTorch of the Python that runs this
script; another Python needs no PyTorch of its own. All wheels are built from the source archive, which shows if a file
is missing from it.

libtorch_cpu.so, libc10.so and libstdc++ are not bundled. An error in a kernel reaches PyTorch as a C++ exception, which
would have another type in a second libstdc++. The platform tag therefore follows from glibc and libstdc++ of the
building machine, as auditwheel finds it (Debian 12: manylinux_2_34).
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST, WORK = ROOT / "dist", ROOT / "build" / "wheels"
OF_PYTORCH = ("libtorch_cpu.so", "libc10.so")


def run(*command: object, **environ: str) -> None:
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, cwd=WORK, env=os.environ | environ)


def found(python: str) -> str:
    """Return the absolute path of an interpreter; links are kept, as they tell Python its environment."""
    path = shutil.which(python)
    if path is None:
        raise SystemExit(f"{python}: no such interpreter")
    return str(Path(path).absolute())


def source_and_pure_wheel() -> Path:
    """Build both in isolation, the wheel from the archive, and return the folder of the unpacked archive."""
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (archive,) = DIST.glob("f2d-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(WORK, filter="data")
    return WORK / archive.name.removesuffix(".tar.gz")


def compiled_wheel(python: str, source: Path) -> None:
    """Build a wheel for `python` in dist/, repaired by auditwheel."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise SystemExit(f"a compiled wheel needs PyTorch's headers: install torch for {sys.executable}")
    environment, made = WORK / "environment", WORK / "made"
    run(python, "-m", "venv", "--clear", environment)
    run(environment / "bin" / "python", "-m", "pip", "install", "-q", "setuptools>=77")
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "torch").symlink_to(Path(torch.origin).resolve().parent)
    # objects in a folder that all Pythons share
    config = WORK / "build.cfg"
    config.write_text(f"[build_ext]\nbuild_temp = {WORK / 'objects'}\n")
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", made]
    shutil.rmtree(source / "build", ignore_errors=True)  # of the Python before
    run(environment / "bin" / "python", "-m", "pip", "wheel", "-q", *options, source, DIST_EXTRA_CONFIG=str(config))
    (wheel,) = made.glob("*.whl")
    if "none-any" in wheel.name:
        raise SystemExit(f"{wheel.name}: nothing was compiled; pip -v says why")
    excluded = [part for name in OF_PYTORCH for part in ("--exclude", name)]
    run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--strip", "--wheel-dir", DIST, wheel)
    wheel.unlink()


def main(pythons: list[str]) -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    source = source_and_pure_wheel()
    for python in map(found, pythons or [sys.executable]):
        compiled_wheel(python, source)
    for file in sorted(DIST.iterdir()):
        print(f"{file.stat().st_size / 2**20:6.2f} MiB  {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
