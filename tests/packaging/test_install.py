"""The documented ways to install, run for real into an empty folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACKED = ("csrc", "f2d", "f2d_kernels", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def source(tmp_path) -> Path:
    """The files of a clean checkout: nothing built, nothing ignored."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in TRACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def install(source: Path, target: Path, **environ: str) -> str:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        target,
        source,
    ]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=os.environ | environ, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def run_from(target: Path, *arguments: str) -> str:
    """Output of python run where only `target` has the project."""
    environ = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environ, cwd=target, check=True
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="cross-building the CUDA part needs nvcc")
def test_the_cuda_part_cross_builds_without_a_gpu_and_says_why_it_does_not_load(source, tmp_path):
    target = tmp_path / "site"
    install(source, target, F2D_KERNELS_FORCE_CUDA="1", TORCH_CUDA_ARCH_LIST="8.0;9.0")
    assert (target / "f2d_kernels" / "_cuda.so").stat().st_size > 0
    import torch

    info = run_from(target, "-m", "f2d_kernels.info")
    if torch.version.cuda is None:
        assert "the CUDA part is there, but PyTorch" in info
    assert "available" in next(line for line in info.splitlines() if line.startswith("backend cpp"))
    assert "8.0" in info and "9.0" in info


def test_without_the_compiled_part_it_installs_works_and_says_what_was_left_out(source, tmp_path):
    target = tmp_path / "site"
    log = install(source, target, F2D_KERNELS_SKIP_CPP="1", F2D_KERNELS_SKIP_CUDA="1")
    assert "the cpp part is skipped: F2D_KERNELS_SKIP_CPP is set" in log
    assert not list(target.rglob("*.so"))
    code = (
        "import torch, f2d_kernels as k; print(k.expert_assembly(torch.ones(1, 2, 1, 1, 1), torch.ones(1, 2)).item())"
    )
    assert run_from(target, "-c", code).strip() == "2.0"


def test_an_installation_carries_recipes_weights_photographs_licences_and_key_map(source, tmp_path):
    target = tmp_path / "site"
    install(source, target, F2D_KERNELS_SKIP_CPP="1", F2D_KERNELS_SKIP_CUDA="1")
    for name in (
        "f2d/configs/lite.yaml",
        "f2d/checkpoints/official_keys.json",
        "f2d/weights/LICENSE",
        "f2d/photographs/LICENSE",
        "f2d/photographs/coffee.jpg",
        "f2d_kernels/py.typed",
    ):
        assert (target / name).is_file(), name
    shipped = {p.relative_to(ROOT) for p in (ROOT / "f2d" / "weights").rglob("*") if p.is_file()}
    assert all((target / path).is_file() for path in shipped)
