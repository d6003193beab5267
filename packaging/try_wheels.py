"""Test each wheel of dist/ as a user would install it: in an environment of its own, without the checkout.

    python packaging/try_wheels.py [PYTHON ...]        # make test-wheels

PYTHON: interpreters that have PyTorch, the other dependencies and pytest. The environments use their packages, and this
project from the wheel. The script compares the versions that all parts report, checks the backends, degrades and
restores an image, and runs the tests of the kernels from a copy. A pure wheel has the same Python files as the compiled
ones, so only the tests of the backends run on it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from build_wheels import found

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    *("expert_assembly", "expert_head", "gaussian_transition", "group_norm_silu", "lognormal_transition"),
    *("transport_step", "contract", "backends"),
)
FACTS = """
import importlib.metadata, json, sys, sysconfig
import f2d, f2d_kernels
from f2d_kernels.compiled import build_info
print(json.dumps({
    "versions": [importlib.metadata.version("f2d"), f2d.__version__, f2d_kernels.__version__],
    "built": (build_info() or {}).get("version"),
    "cpp": f2d_kernels.backends()["cpp"],
    "places": [f2d.__file__, f2d_kernels.__file__],
}))
"""

PICTURE = "from PIL import Image; Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 40).save('clean.png')"


def run(*command: object, cwd: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "F2D_"))}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, env=environ)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def ask(python: Path | str, what: str, cwd: Path) -> str:
    return run(python, "-c", f"import sys, sysconfig; print({what})", cwd=cwd).strip()


def environment(python: str, wheel: Path, folder: Path) -> Path:
    """Create an environment with the wheel and the packages of `python`; return its folder of executables."""
    run(python, "-m", "venv", folder / "venv", cwd=folder)
    others = ask(python, "sysconfig.get_paths()['purelib']", folder)
    binaries = folder / "venv" / "bin"
    run(binaries / "python", "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=folder)
    site = ask(binaries / "python", "sysconfig.get_paths()['purelib']", folder)
    (Path(site) / "dependencies.pth").write_text(others + "\n")
    return binaries


def try_one(python: str, wheel: Path, folder: Path) -> None:
    binaries = environment(python, wheel, folder)
    facts = json.loads(run(binaries / "python", "-c", FACTS, cwd=folder))
    compiled = "none-any" not in wheel.name
    said = run(binaries / "f2d", "--version", cwd=folder).split()[-1]
    built = [facts["built"]] if compiled else []
    versions = {wheel.name.split("-")[1], said, *facts["versions"], *built}
    assert len(versions) == 1, f"different versions: {versions}"
    assert all(str(folder) in place for place in facts["places"]), facts
    assert facts["cpp"].startswith("available") == compiled, facts

    run(binaries / "f2d", "info", cwd=folder)
    run(binaries / "f2d", "info", "f2d-lite", cwd=folder)
    info = run(binaries / "python", "-m", "f2d_kernels.info", cwd=folder)
    run(binaries / "python", "-c", PICTURE, cwd=folder)
    run(binaries / "f2d", "degrade", "clean.png", "-o", "degraded.png", "--category", "haze_rain", cwd=folder)
    run(binaries / "f2d", "restore", "degraded.png", "-o", "restored", cwd=folder)
    assert (folder / "restored" / "degraded.png").stat().st_size > 0

    (folder / "tests").mkdir()
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    shutil.copytree(ROOT / "tests" / "kernels", folder / "tests" / "kernels")
    files = [f"tests/kernels/test_{name}.py" for name in (TESTS if compiled else ("backends",))]
    tested = run(binaries / "python", "-m", "pytest", "-q", "-m", "not slow", *files, cwd=folder)
    print(f"{wheel.name} on {ask(python, 'sys.version.split()[0]', folder)}: {tested.strip().splitlines()[-1]}")
    print("    " + "\n    ".join(info.strip().splitlines()), flush=True)


def main(pythons: list[str]) -> None:
    for python in map(found, pythons or [sys.executable]):
        tag = ask(python, "'cp%d%d' % sys.version_info[:2]", ROOT)
        for wheel in sorted((ROOT / "dist").glob("*.whl")):
            if f"-{tag}-" in wheel.name or "none-any" in wheel.name:
                with tempfile.TemporaryDirectory() as folder:
                    try_one(python, wheel, Path(folder).resolve())


if __name__ == "__main__":
    main(sys.argv[1:])
