"""What the Triton kernels become on GPUs that are not here: wide accesses, no spills, 64-bit offsets, no fusion."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
OPS = ["assembly", "transition", "transport", "gaussian", "head", "group norm"]
QUICK = [f"{op} bf16" for op in OPS]
ALIGNED = ["assembly", "assembly bf16", "assembly K=8", "assembly channels_last C=64", "transition", "transition bf16",
           "transport", "transport bf16", "transport bf16 K=8"]  # fmt: skip
FAR = [f"{op} beyond int32" for op in OPS]
KERNELS = {
    "_forward_kernel", "_backward_kernel", "_shared_deltas_kernel", "_sum_rows_kernel", "_whole_group_kernel",
    "_moments_kernel", "_combine_kernel", "_statistics_kernel", "_apply_kernel", "_gradient_sums_kernel",
    "_input_gradient_kernel",
}  # fmt: skip
SLOW = functools.partial(pytest.param, marks=pytest.mark.slow)
WIDE = r"{}\.global[.\w:]*\.(v4\.b32|v2\.b64|b128)"


@functools.cache
def compiled(target: str, *cases: str) -> dict[str, list[dict]]:
    """Case -> its kernels, compiled by a fresh process: here the kernels may be interpreted ones."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, ROOT / "tests" / "kernels" / "triton_ahead_of_time.py", target, *cases]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def everything(target: str) -> list[tuple[str, dict]]:
    return [(case, kernel) for case, kernels in compiled(target).items() for kernel in kernels]


def assert_no_spills(kernels: list[tuple[str, dict]]) -> None:
    for case, kernel in kernels:
        usage = kernel["resources"]
        assert usage["REG"] > 0 and usage["STACK"] == usage["LOCAL"] == 0, f"{case}, {kernel['kernel']}: {usage}"


@pytest.mark.parametrize("target", ["cuda:80", "cuda:100"])
def test_main_cases_compile_without_spills(target):
    assert_no_spills([(case, kernel) for case, kernels in compiled(target, *QUICK).items() for kernel in kernels])


@pytest.mark.parametrize("target", [SLOW("cuda:80"), "cuda:90", SLOW("cuda:100")])
def test_every_case_compiles_without_spills(target):
    """For one GPU in every run: what the interpreter accepts, the compiler may not. 150 s of one core, which the tests
    below share."""
    kernels = everything(target)
    assert {kernel["kernel"] for _, kernel in kernels} == KERNELS
    assert_no_spills(kernels)


def test_where_warps_are_tuned_sums_are_sums_of_pairs():
    """a + b does not depend on who adds; a longer sum depends on how the compiler spreads it over the warps."""
    lengths = {True: set(), False: set()}
    for case, kernel in everything("cuda:90"):
        reduces = re.findall(r'"tt\.reduce"\(%[^)]*\) <\{axis = (\d+) : i32\}>.*?\}\) : \(tensor<([\dx]+)(\w+)>\)',
                             kernel["ttir"], re.DOTALL)  # fmt: skip
        assert len(reduces) == kernel["ttir"].count('"tt.reduce"'), f"{case}, {kernel['kernel']}"
        found = {int(shape.split("x")[int(axis)]) for axis, shape, of in reduces if of.startswith("f")}
        lengths[kernel["tuned"]] |= found
        assert not kernel["tuned"] or found <= {1, 2}, f"{case}, {kernel['kernel']}: sums of {max(found)}"
    assert 2 in lengths[True] and max(lengths[False]) > 2  # and this can fail: the head's backward kernel is not tuned


def test_main_cases_compile_for_amd():
    for kernels in compiled("hip:gfx942", *QUICK).values():
        assert all("s_endpgm" in kernel["asm"] and "gfx942" in kernel["asm"] for kernel in kernels)


@pytest.mark.parametrize("case", ALIGNED)
def test_aligned_images_move_in_16_bytes(case):
    for kernel in compiled("cuda:90")[case][:2]:
        loads, stores = (len(re.findall(WIDE.format(way), kernel["asm"])) for way in ("ld", "st"))
        narrow = len(re.findall(r"st\.global[.\w:]*\.b16", kernel["asm"])) if "C=64" not in case else 0
        assert loads >= 2 and stores >= 1 and narrow == 0, f"{kernel['kernel']}: {loads} loads, {stores} stores"


def test_unaligned_rows_are_not_read_in_16_bytes():
    """The counter of the test above can fail: rows of 31 elements have no aligned groups."""
    assert not re.search(WIDE.format("ld"), compiled("cuda:90")["assembly odd size"][0]["asm"])


def test_offsets_are_64_bit_where_images_pass_2_to_the_31():
    for case in FAR:
        for kernel in compiled("cuda:90")[case][:2]:
            if kernel["kernel"] in ("_combine_kernel", "_statistics_kernel"):
                continue  # count tiles, not pixels
            offsets = re.findall(r"tt\.addptr [^\n]*, ((?:tensor<[^\n>]*>)|i\d+)(?: loc|\n)", kernel["ttir"])
            assert len(offsets) == kernel["ttir"].count("tt.addptr")
            # weights of a head are small tables; what counts pixels is at least a warp wide
            of_pixels = [o for o in offsets for size in re.findall(r"(\d+)xi\d+", o) if int(size) >= 32]
            assert of_pixels and all("i64" in o for o in of_pixels), f"{case}, {kernel['kernel']}: {set(offsets)}"


def test_small_images_count_in_32_bits():
    """So that the test above can fail, and divisions stay cheap."""
    ttir = compiled("cuda:90")["transition window"][0]["ttir"]
    assert "arith.divsi" in ttir and not re.search(r"arith\.(divsi|remsi) [^\n]*i64", ttir)


def test_multiplications_and_additions_are_fused_only_where_written():
    """The backward assembly spells no fma, though it multiplies and then adds; the square root is the rounded one."""
    backward = compiled("cuda:90")["assembly"][1]
    assert backward["kernel"] == "_backward_kernel" and re.search(r"add(\.rn)?\.f32", backward["asm"])
    assert not re.search(r"(fma|mad)[.\w]*\.f32", backward["asm"])
    transition = compiled("cuda:90")["transition"][0]["asm"]
    assert "fma.rn.f32" in transition and "sqrt.rn.f32" in transition and "approx" not in transition
