"""The CUDA kernels as nvcc sees them: no spills, no local memory, 16-byte accesses. Needs a toolkit, no GPU."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "setup.py"))
NVCC = SETUP["find_nvcc"](os.environ)
COMPILER = SETUP["find_compiler"](os.environ)
SOURCES = sorted(path.stem for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
BFLOAT16 = 3  # DType::bf16 of csrc/portable.h, in mangled names
VECTORS = ("VectorPixels", "TriplePixels", "interleaved")  # in the mangled names of kernels that read vectors

pytestmark = pytest.mark.skipif(NVCC is None or COMPILER is None, reason="needs nvcc (CUDA toolkit) and a C++ compiler")


def compile_with(source: str, output: str, architecture: str, *flags: str) -> str:
    """nvcc with the flags of the real build, for one architecture; returns what ptxas said."""
    units = SETUP["cuda_units"](NVCC, COMPILER, SETUP["find_torch"](), architecture)
    command = next(unit.command for unit in units if unit.source.stem == source)
    path = str(ROOT / "csrc" / "cuda" / f"{source}.cu")
    done = subprocess.run([*command, path, "-o", output, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "architecture", [pytest.param("8.0", marks=pytest.mark.slow), "9.0", pytest.param("10.0", marks=pytest.mark.slow)]
)
def test_no_kernel_spills_or_uses_local_memory(source, architecture, tmp_path):
    log = compile_with(source, str(tmp_path / "kernels.o"), architecture, "-c", "-Xptxas", "-v")
    kernels = re.findall(r"Compiling entry function '(\w+)'", log)
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert len(kernels) == len(frames) >= 5
    used = {name: frame for name, frame in zip(kernels, frames, strict=True) if frame != ("0", "0", "0")}
    assert not used, f"stack frame, spill stores, spill loads in bytes: {used}"


@pytest.mark.parametrize("source", SOURCES)
def test_aligned_kernels_access_16_bytes_at_a_time(source, tmp_path):
    compile_with(source, str(tmp_path / "kernels.ptx"), "9.0", "-ptx")
    entries = re.split(r"\n\.(?:visible|weak) \.entry ", (tmp_path / "kernels.ptx").read_text())[1:]
    aligned = [text for text in entries if any(name in text.split("(")[0] for name in VECTORS)]
    assert len(aligned) >= 10  # a forward and a backward pass on five kinds of pixels
    for text in aligned:
        name = text.split("(")[0]
        # four elements of 16 bits a lane in channels_last: eight left its backward pass no registers
        words = 2 if f"TriplePixelsINS_7OneTypeILNS_5DTypeE{BFLOAT16}ELi4E" in name else 4
        assert re.search(rf"ld\.global(\.nc)?\.v{words}\.[bu]32", text), f"{name}: no {4 * words}-byte load"
        assert re.search(rf"st\.global(\.wb)?\.v{words}\.[buf]32", text), f"{name}: no {4 * words}-byte store"


@pytest.mark.slow
def test_cross_build_beside_a_cpu_only_pytorch(tmp_path):
    """F2D_KERNELS_FORCE_CUDA=1 links a shared object that asks for PyTorch's CUDA library when it is loaded."""
    for name in ("csrc", "f2d_kernels"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "setup.py", tmp_path)
    environ = {**os.environ, "F2D_KERNELS_FORCE_CUDA": "1", "F2D_KERNELS_SKIP_CPP": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tmp_path, env=environ, check=True)
    binary = (tmp_path / "f2d_kernels" / "_cuda.so").read_bytes()
    assert b"libtorch_cuda.so" in binary
    assert b"libcudart.so" not in binary  # linked statically: the toolkit's version need not match PyTorch's
