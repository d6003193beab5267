"""What setup.py decides to build, and what the loader says about binaries that are missing or do not fit."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from f2d_kernels import compiled
from f2d_kernels.version import __version__

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "setup.py"))
decide = SETUP["decide"]
CPU_TORCH = SETUP["Torch"](Path("torch"), "2.13.0+cpu", None)
CUDA_TORCH = SETUP["Torch"](Path("torch"), "2.11.0+cu130", "13.0")


def test_everything_there_builds_everything():
    assert decide({}, CUDA_TORCH, "g++", "nvcc") == (["cpp", "cuda"], [])


@pytest.mark.parametrize(
    ("environ", "torch_found", "compiler", "nvcc", "system", "parts", "reason"),
    [
        ({}, None, "g++", "nvcc", "Linux", [], "no PyTorch at build time"),
        ({}, CPU_TORCH, None, "nvcc", "Linux", [], "no C++ compiler"),
        ({}, CUDA_TORCH, "g++", None, "Linux", ["cpp"], "no nvcc"),
        ({}, CPU_TORCH, "g++", "nvcc", "Linux", ["cpp"], "2.13.0+cpu has no CUDA"),
        ({}, CUDA_TORCH, "g++", "nvcc", "Windows", [], "this is Windows"),
        (
            {},
            SETUP["Torch"](Path("torch"), "2.9.1", "12.8"),
            "g++",
            "nvcc",
            "Linux",
            [],
            "2.10 or newer, this is 2.9.1",
        ),
        ({"F2D_KERNELS_SKIP_CUDA": "1"}, CUDA_TORCH, "g++", "nvcc", "Linux", ["cpp"], "F2D_KERNELS_SKIP_CUDA is set"),
        ({"F2D_KERNELS_SKIP_CPP": "1"}, CUDA_TORCH, "g++", "nvcc", "Linux", ["cuda"], "F2D_KERNELS_SKIP_CPP is set"),
    ],
)
def test_what_is_left_out_is_said_with_its_reason(environ, torch_found, compiler, nvcc, system, parts, reason):
    built, lines = decide(environ, torch_found, compiler, nvcc, system)
    assert built == parts
    assert len(lines) == 2 - len(parts)
    assert all(reason in line and "\n" not in line for line in lines)


def test_a_switch_set_to_zero_is_off():
    assert decide({"F2D_KERNELS_SKIP_CUDA": "0", "F2D_KERNELS_SKIP_CPP": ""}, CUDA_TORCH, "g++", "nvcc")[1] == []


def test_force_builds_cuda_beside_a_cpu_only_pytorch_and_fails_where_it_cannot():
    forced = {"F2D_KERNELS_FORCE_CUDA": "1"}
    assert decide(forced, CPU_TORCH, "g++", "nvcc") == (["cpp", "cuda"], [])
    with pytest.raises(RuntimeError, match="no nvcc"):
        decide(forced, CPU_TORCH, "g++", None)
    with pytest.raises(ValueError, match="choose one"):
        decide({**forced, "F2D_KERNELS_SKIP_CUDA": "1"}, CPU_TORCH, "g++", "nvcc")


def test_architecture_list():
    flags = SETUP["architecture_flags"]
    assert flags("8.0;9.0a 10.0+PTX") == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_100,code=sm_100",
        "-gencode=arch=compute_100,code=compute_100",
    ]
    assert len(flags(SETUP["DEFAULT_ARCHITECTURES"])) == 4
    for wrong in ("Hopper", "9", "sm_90", " ; "):
        with pytest.raises(ValueError, match="TORCH_CUDA_ARCH_LIST"):
            flags(wrong)


@pytest.mark.parametrize(
    ("environ", "cores", "memory", "jobs"),
    [({}, 16, 64, 16), ({}, 16, 9, 4), ({}, 8, 1, 1), ({"MAX_JOBS": "3"}, 16, 1, 3)],
)
def test_parallel_compilers(environ, cores, memory, jobs):
    assert SETUP["job_count"](environ, cores, memory) == jobs


def test_kernels_are_compiled_per_instruction_set_and_never_for_this_machine_only():
    units = SETUP["cpp_units"]("g++", CPU_TORCH, "x86_64")
    by_level = {f: [u for u in units if f"-DF2D_LEVEL={f}" in u.command] for f in ("baseline", "avx2", "avx512")}
    kernels = {path.name for path in (ROOT / "csrc" / "cpu").glob("*.cpp")}
    assert all({u.source.name for u in group} == kernels for group in by_level.values())
    assert not any("-mavx" in flag for unit in by_level["baseline"] for flag in unit.command)
    forbidden = {"-march=native", "-mtune=native", "-ffast-math", "-Ofast"}
    assert not any(forbidden & set(unit.command) for unit in units)
    assert len({unit.object_in(Path()) for unit in units}) == len(units)
    moved = SETUP["Unit"](Path("/another/checkout") / units[0].source.name, units[0].command)
    assert moved.object_in(Path()) != units[0].object_in(Path())  # its objects are not taken for ours
    arm = SETUP["cpp_units"]("g++", CPU_TORCH, "aarch64")
    assert not any("-mavx" in flag for unit in arm for flag in unit.command)


QUICK = "group_norm_silu_backward"  # the others take up to ten seconds each to compile
SOURCES = [path.stem for path in sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]


@pytest.mark.parametrize("source", [pytest.param(s, marks=() if s == QUICK else pytest.mark.slow) for s in SOURCES])
def test_instruction_sets_share_no_functions(source, tmp_path):
    """A weak (shared) symbol in an AVX-512 object could be the copy that the linker hands to every other level. With
    -O1, where less is inlined than in the build."""
    compiler = SETUP["find_compiler"](os.environ)
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs a C++ compiler and nm")
    unit = next(
        u
        for u in SETUP["cpp_units"](compiler, SETUP["find_torch"](), "x86_64")
        if "-DF2D_LEVEL=baseline" in u.command and u.source.stem == source
    )
    target = tmp_path / "kernels.o"
    subprocess.run([*unit.command, "-O1", "-c", str(unit.source), "-o", str(target)], check=True)
    symbols = subprocess.run(
        ["nm", "-C", "--defined-only", str(target)], capture_output=True, text=True, check=True
    ).stdout
    shared = [line for line in symbols.splitlines() if line.split(maxsplit=2)[1] in "WVuw"]
    assert not shared


def test_without_pytorch_the_installation_is_pure_python_and_says_so(tmp_path):
    """What an isolated `pip install .` runs: no PyTorch on the path, hence no extension, and no failure."""
    code = (
        "import importlib.util, runpy, sys\n"
        "importlib.util.find_spec = lambda name, package=None: None\n"
        "module = runpy.run_path('setup.py')\n"
        "assert module['extensions']() == []\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no PyTorch at build time") == 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    for load in (compiled.load_cpu, compiled.load_cuda):
        load.cache_clear()
    yield tmp_path
    for load in (compiled.load_cpu, compiled.load_cuda):
        load.cache_clear()


def record(**changes):
    return {"version": __version__, "minimum_torch": "2.10", **changes}


def test_a_missing_binary_is_reported_with_how_to_build_it(folder):
    assert "not built" in compiled.load_cpu() and "C++ compiler" in compiled.load_cpu()
    assert "not built" in compiled.load_cuda() and "nvcc" in compiled.load_cuda()


def test_a_corrupt_binary_is_named_with_the_loaders_error(folder, monkeypatch):
    (folder / "_cpu.so").write_bytes(b"not a shared object")
    monkeypatch.setattr(compiled, "build_info", record)
    reason = compiled.load_cpu()
    assert "_cpu.so does not load" in reason and "\n" not in reason


@pytest.mark.parametrize(
    ("info", "running", "reason"),
    [
        (None, "2.13.0", "another Python"),
        (record(version="0.0.1"), "2.13.0", "0.0.1"),
        (record(), "2.9.1", "needs PyTorch 2.10 or newer"),
        (record(minimum_torch="2.14"), "2.13.0+cpu", "needs PyTorch 2.14"),
    ],
)
def test_a_binary_that_does_not_fit_is_named_and_not_used(folder, monkeypatch, info, running, reason):
    (folder / "_cpu.so").write_bytes(b"")
    monkeypatch.setattr(compiled, "build_info", lambda: info)
    monkeypatch.setattr(torch, "__version__", running)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: pytest.fail("loaded all the same"))
    assert reason in compiled.load_cpu() and "_cpu.so" in compiled.load_cpu()


@pytest.mark.parametrize("running", ["2.10.0", "2.11.0+cu130", "2.13.0a0+git123", "3.0.0"])
def test_every_newer_pytorch_fits(running):
    assert compiled.misfit(record(), running) is None


def test_the_cuda_part_is_not_tried_beside_a_cpu_only_pytorch(folder, monkeypatch):
    (folder / "_cuda.so").write_bytes(b"")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "has no CUDA" in compiled.load_cuda()


def test_build_info_names_what_an_issue_report_needs():
    info = compiled.build_info()
    if info is None:
        pytest.skip("the compiled part is not built here")
    assert info["version"] == __version__
    assert info["simd_in_use"] in info["simd"]
    assert {"compiler", "torch", "minimum_torch", "cuda", "cuda_architectures", "openmp"} <= info.keys()


@pytest.mark.parametrize(("level", "works"), [("baseline", True), ("sse9", False)])
def test_the_instruction_set_can_be_forced_and_a_wrong_name_is_refused(level, works):
    if compiled.load_cpu() is not None:
        pytest.skip(compiled.load_cpu())
    code = (
        "import torch, f2d_kernels\n"
        "from f2d_kernels import compiled\n"
        "print(compiled.build_info()['simd_in_use'])\n"
        "with f2d_kernels.use_backend('cpp'):\n"
        "    f2d_kernels.expert_assembly(torch.ones(1, 1, 1, 2, 2), torch.ones(1, 1))\n"
    )
    environ = {**os.environ, "F2D_KERNELS_SIMD": level}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environ)
    assert (done.returncode == 0) == works
    assert level in (done.stdout if works else done.stderr)
