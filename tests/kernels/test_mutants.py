"""Deliberately broken kernels: each must be caught by the test that is named beside it.

The project's sources are copied, the copy's C++ part is built for one instruction set, and the named tests pass on it.
Then one line at a time is changed in the copy, and the named test must fail. The working tree is never touched.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from f2d_kernels.compiled import load_cpu

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PARTS = ("csrc", "f2d_kernels", "tests/kernels", "tests/conftest.py", "tests/__init__.py", "setup.py", "pyproject.toml",
         "README.md", "LICENSE")  # fmt: skip
BUILT = ("lognormal_transition", "gaussian_transition")  # the others take a minute to compile, and break alike
ONE_LEVEL = [
    ("setup.py", 'LEVELS = {"baseline": [], "avx2": AVX2_FLAGS, "avx512": AVX512_FLAGS}', 'LEVELS = {"baseline": []}'),
    ("csrc/cpu/level.h", "#if defined(__x86_64__)\nconstexpr int kLevels", "#if 0\nconstexpr int kLevels"),
    ("csrc/cpu/dispatch.h", "#if defined(__x86_64__)\n#define F2D_KERNEL", "#if 0\n#define F2D_KERNEL"),
]


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` in `path`; `test` must notice."""

    name: str
    path: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant("wrong stride: rows are taken for dense", "csrc/cpu/tensors.h",
           "s.h = t.stride(h_dim);", "s.h = width * s.w;",
           "test_gaussian_transition.py::test_layouts_and_dtypes[sliced-torch.float32-cpp]"),
    Mutant("missed tail: what fills no 16 lanes is not summed", "csrc/cpu/gaussian_transition.cpp",
           "for (int l = 0; i < n; ++i, ++l) lanes[l] += static_cast<double>(a[i]) * static_cast<double>(b[i]);", "",
           "test_gaussian_transition.py::test_sizes[(3, 11)-cpp]"),
    Mutant("a sum is not reset between tiles", "csrc/cpu/gaussian_transition.cpp",
           "double term_lanes[kMaxTerms][kLaneCount] = {}, std_lanes[kLaneCount] = {};",
           "static thread_local double term_lanes[kMaxTerms][kLaneCount], std_lanes[kLaneCount];",
           "test_gaussian_transition.py::test_layouts_and_dtypes[contiguous-torch.float32-cpp]"),
    Mutant("swapped gradient: d_x for d_mu", "csrc/lognormal_transition.h",
           "return {grad * e.exp, -(grad * e.expm1), slope,", "return {-(grad * e.expm1), grad * e.exp, slope,",
           "test_lognormal_transition.py::test_layouts_and_dtypes[contiguous-torch.float32-cpp]"),
    Mutant("swapped gradient: log_mean for log_std", "csrc/cpu/bind/lognormal_transition.cpp",
           "store_sums(d_log_std, a.log_std_parts,", "store_sums(d_log_std, a.log_mean_parts,",
           "test_lognormal_transition.py::test_layouts_and_dtypes[contiguous-torch.float32-cpp]"),
    Mutant("dropped clamp of the exponent", "csrc/lognormal_transition.h",
           "return raw < A(-20) ? A(-20) : raw > A(20) ? A(20) : raw;", "return raw;",
           "test_lognormal_transition.py::test_exponent_is_clamped_and_then_has_no_gradient[torch.float32-cpp]"),
    Mutant("a gradient passes through the clamp", "csrc/lognormal_transition.h",
           "const bool clamped = (raw < A(-20)) | (raw > A(20));", "const bool clamped = false;",
           "test_lognormal_transition.py::test_exponent_is_clamped_and_then_has_no_gradient[torch.float32-cpp]"),
    Mutant("lost digits: no expm1 for small steps", "csrc/lognormal_transition.h",
           "return {grad * e.exp, -(grad * e.expm1), slope,", "return {grad * e.exp, grad * (A(1) - e.exp), slope,",
           "test_lognormal_transition.py::test_small_steps_keep_their_digits[cpp]"),
    Mutant("noise not keyed by the window", "csrc/cpu/noise.h",
           "const int64_t column = x + left;", "const int64_t column = x;",
           "test_noise.py::test_a_tile_draws_what_the_whole_image_draws[window2-cpp]"),
    Mutant("noise not keyed by the stream", "csrc/cpu/noise.h",
           "+ 65536u * key.stream;", "+ 0u * key.stream;",
           "test_noise.py::test_seeds_streams_samples_and_channels_all_differ[cpp]"),
    Mutant("a sample with its own seed depends on its index", "csrc/cpu/args.h",
           "seed_per_sample ? 0u : static_cast<uint32_t>(b)", "static_cast<uint32_t>(b)",
           "test_noise.py::test_padding_batching_and_memory_layout_do_not_matter[cpp]"),
    Mutant("bfloat16 cut off instead of rounded", "csrc/portable.h",
           "(bits + 0x7fffu + ((bits >> 16) & 1)) >> 16", "bits >> 16",
           "test_gaussian_transition.py::test_16_bit_results_are_rounded_to_nearest[torch.bfloat16-cpp]"),
    Mutant("wrong expert: all get the first one's gate", "f2d_kernels/reference/expert_assembly.py",
           "gate = _gate(gates, k)", "gate = _gate(gates, 0)",
           "test_expert_assembly.py::test_layouts_and_dtypes[contiguous-torch.float32-reference]"),
    Mutant("missing map", "f2d_kernels/reference/expert_assembly.py",
           "return gate if maps is None else gate * maps[:, k, None]", "return gate",
           "test_expert_assembly.py::test_layouts_and_dtypes[contiguous-torch.float32-reference]"),
    Mutant("gradient of the noise without std", "f2d_kernels/reference/gaussian_transition.py",
           "results.append(_per_sample(a.std, dtype) * g)", "results.append(g)",
           "test_gaussian_transition.py::test_layouts_and_dtypes[contiguous-torch.float32-reference]"),
    Mutant("saved stand-ins for what the gradient reads", "f2d_kernels/ops/gaussian_transition.py",
           "if not need_coefficients:", "if need_coefficients:",
           "test_gaussian_transition.py::test_one_to_four_terms[2-cpp]"),
    Mutant("Triton: every term gets the first coefficient", "f2d_kernels/triton/gaussian_transition.py",
           "tl.cast(j, tl.int64) * stride[1]", "tl.cast(0, tl.int64) * stride[1]",
           "test_gaussian_transition.py::test_one_to_four_terms[3-triton]"),
    Mutant("Triton: one partial sum per lane only", "f2d_kernels/triton/_reduce.py",
           "for first in range(0, tl.cast(count, INDEX), LANES):", "for first in range(0, 1):",
           "test_triton_interpreted.py::test_the_second_reduction_adds_every_partial_once"),
    Mutant("Triton: a launch reads what it writes", "f2d_kernels/triton/_groups.py",
           "workspaces[i % 2]", "workspaces[0]",
           "test_triton_launches.py::test_a_launch_that_is_repeated_gives_the_same_bits[assembly K=17]"),
    Mutant("Triton: blocks of a large image counted in 32 bits", "f2d_kernels/triton/_launch.py",
           "tl.cdiv(tl.cast(size, INDEX), BLOCK)", "tl.cdiv(size, BLOCK)",
           "test_triton_far.py::test_blocks_are_counted_right_up_to_2_to_the_31_and_beyond[2147483647-1024]"),
    Mutant("noise of the next stream in channel 65536", "f2d_kernels/noise.py",
           "if x.shape[1] > MAX_CHANNELS:", "if x.shape[1] > MAX_CHANNELS + 1:",
           "test_noise.py::test_noise_that_another_stream_draws_is_refused[lognormal_transition-cpp]"),
]  # fmt: skip


def patch(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: this text stands there {text.count(old)} times, expected once: {old}"
    path.write_text(text.replace(old, new))


def run(copy: Path, *command: str) -> subprocess.CompletedProcess:
    environ = {**os.environ, "PYTHONPATH": str(copy), "F2D_KERNELS_SIMD": "baseline", "F2D_KERNELS_SKIP_CUDA": "1"}
    environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *command], cwd=copy, env=environ, capture_output=True, text=True)


def build(copy: Path) -> None:
    """The project's own build, which compiles again only what read a changed file."""
    done = run(copy, "setup.py", "-q", "build_ext", "--inplace")
    assert done.returncode == 0, done.stderr[-2000:]


def pytest_on(copy: Path, *tests: str) -> subprocess.CompletedProcess:
    return run(copy, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/kernels/{test}" for test in tests))


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> Path:
    """A built copy of the project on which every named test passes."""
    if (missing := load_cpu()) is not None:
        pytest.skip(missing)
    pytest.importorskip("triton")
    copy = tmp_path_factory.mktemp("intact")
    for part in PARTS:
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy2(ROOT / part, copy / part)
    for source in (copy / "csrc" / "cpu").rglob("*.cpp"):
        if not source.stem.startswith(BUILT):
            source.unlink()
    for path, old, new in ONE_LEVEL:
        patch(copy / path, old, new)
    build(copy)
    where = run(copy, "-c", "import f2d_kernels; print(f2d_kernels.__file__)").stdout.strip()
    assert Path(where).is_relative_to(copy), f"the copy's tests would run on {where}"
    tests = sorted({mutant.test for mutant in MUTANTS})
    done = pytest_on(copy, *tests)
    assert done.returncode == 0 and f"{len(tests)} passed" in done.stdout, done.stdout[-3000:]
    return copy


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_kernel_is_caught_by_name(mutant, intact):
    target, objects, library = intact / mutant.path, intact / "build", intact / "f2d_kernels" / "_cpu.so"
    kept = [shutil.copy2(path, path.with_name(path.name + ".kept")) for path in (target, library)]
    shutil.copytree(objects, intact / "build.kept")  # with its times, so that nothing is compiled twice
    try:
        patch(target, mutant.old, mutant.new)
        if mutant.path.startswith("csrc"):
            build(intact)
        done = pytest_on(intact, mutant.test)
    finally:
        for path, original in zip((target, library), kept, strict=True):
            os.replace(original, path)
        shutil.rmtree(objects)
        (intact / "build.kept").rename(objects)
    assert done.returncode == 1 and "1 failed" in done.stdout, (
        f"not caught: {mutant.old} -> {mutant.new}\n{done.stdout}"
    )
