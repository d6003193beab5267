"""Launches of the CUDA C++ kernels: the launchers of csrc/cuda compiled by nvcc for sm_90, and run without a GPU.

The launchers are the real ones, in a shared object of their own: what they ask of the CUDA runtime and of PyTorch's
CUDA part is answered by no_gpu.cpp, which hands each launch to the executor. The kernels are nvcc's PTX of the same
run.
"""

import ctypes
import hashlib
import os
import runpy
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.ptx.parser import split
from bench.ptx.program import program_in

ROOT = Path(__file__).resolve().parents[2]
_LAUNCHED = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t
)


def missing() -> str | None:
    """Why the kernels cannot be compiled here; None where they can."""
    setup = _setup()
    if setup["find_nvcc"](os.environ) is None:
        return "nvcc is not installed: set CUDA_HOME to a CUDA toolkit"
    return None if setup["find_compiler"](os.environ) else "no C++ compiler: set CXX, or install g++"


@cache
def _setup() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "setup.py"))


def built(sources: Path = ROOT / "csrc") -> Path:
    """Folder with launchers.so and one .ptx a source, compiled unless it was before; named by what it was made from."""
    setup, texts = _setup(), hashlib.sha256()
    for path in sorted([*sources.rglob("*"), ROOT / "setup.py", Path(__file__).with_name("no_gpu.cpp")]):
        if path.is_file() and "cpu" not in path.relative_to(path.anchor).parts:
            texts.update(path.read_bytes())
    folder = ROOT / "build" / "ptx" / texts.hexdigest()[:16]
    if (folder / "launchers.so").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    compiler, torch_found = setup["find_compiler"](os.environ), setup["find_torch"]()
    for unit in setup["cuda_units"](setup["find_nvcc"](os.environ), compiler, torch_found, "9.0"):
        source = sources / "cuda" / unit.source.name
        command = [flag.replace("code=sm_90", "code=compute_90") for flag in unit.command]
        output = folder / f"{source.stem}.o"
        _run([*command, "--keep", "--keep-dir", str(folder), "-c", str(source), "-o", str(output)])
        for left in folder.glob(f"{source.stem}.*"):
            if left.suffix not in (".o", ".ptx"):
                left.unlink()
    libraries = [f"-L{torch_found.root / 'lib'}", "-ltorch_cpu", "-lc10"]
    stub = str(Path(__file__).with_name("no_gpu.cpp"))
    partial = folder / "launchers.partial.so"
    objects = [str(path) for path in sorted(folder.glob("*.o"))]
    _run([compiler, "-std=c++17", "-O1", "-shared", "-fPIC", stub, *objects, *libraries, "-o", str(partial)])
    partial.replace(folder / "launchers.so")
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


@cache
def _loaded() -> tuple[ctypes.CDLL, dict[str, str]]:
    """The launchers, registered with PyTorch under its CUDA key, and the name of each kernel -> its PTX."""
    folder = built()
    torch.ops.load_library(str(folder / "launchers.so"))
    kernels = {name: text for path in folder.glob("*.ptx") for name, text in split(path.read_text()).items()}
    return ctypes.CDLL(str(folder / "launchers.so")), kernels


def kernels() -> set[str]:
    """The (mangled) names of all kernels that nvcc made."""
    return set(_loaded()[1])


def functions(op: str) -> tuple[Callable, Callable]:
    """The launchers under PyTorch's CUDA key, called with CPU tensors."""
    _loaded()

    def of(name: str) -> Callable:
        overload = getattr(torch.ops.f2d_kernels, name).default

        def call(*arguments: Any) -> None:
            _faults.clear()
            try:
                overload._op_dk(torch._C.DispatchKey.CUDA, *arguments)
            except RuntimeError:
                if _faults:
                    raise _faults[0] from None
                raise

        return call

    return of(f"{op}_out"), of(f"{op}_backward_out")


_faults: list[Exception] = []  # of the last call: an exception does not pass through the C++ of a launcher


@contextmanager
def starting(run: Callable[..., None], edited: Callable[[str, str], str]) -> Iterator[None]:
    """Launchers hand their kernels to `run`; `edited(name, PTX)` is what runs."""

    def launched(name: bytes, grid: int, block: int, arguments: Any, shared: int) -> int:
        try:
            kernel = name.decode()
            of = program_in(edited(kernel, _loaded()[1][kernel]), kernel)
            data = bytearray(of.kernel.parameter_bytes)
            for i, (_, offset, size) in enumerate(of.kernel.parameters):
                data[offset : offset + size] = ctypes.string_at(arguments[i], size)
            run(of, grid, block, bytes(data), shared)
        except Exception as error:
            _faults.append(error)
            return 1
        return 0

    library, callback = _loaded()[0], _LAUNCHED(launched)
    library.set_launched(callback)
    try:
        yield
    finally:
        library.set_launched(_LAUNCHED(0))
