"""Deliberately broken kernels: one place of the compiled PTX is changed, and the executor or the comparison with
float64 and with the C++ backend must notice, each by the name beside it."""

import re
from dataclasses import dataclass

import pytest
import torch

from bench.ptx import cuda, faults
from tests.ptx.check import check
from tests.ptx.ops import WINDOW, Case

pytest.importorskip("triton")

BF16 = torch.bfloat16
ASSEMBLY = Case("expert_assembly", BF16)
TRIPLES = Case("expert_assembly", layout="channels_last", size=(264, 260), batch=1)
LOGNORMAL = Case("lognormal_transition", BF16)
FAR = Case("lognormal_transition", BF16, layout="far")
GAUSSIAN = Case("gaussian_transition", BF16, size=(5, 13), window=WINDOW)
NORM = Case("group_norm_silu", BF16, channels=4, size=(33, 63), options={"groups": 2})
WRONG = "error"  # of a result, against float64
ROUNDING = "differ from the C++ backend's"
UNWRITTEN = "elements were never written"


@dataclass(frozen=True)
class Mutant:
    """In the PTX of `kernel`, `old` (a regular expression) becomes `new`, everywhere or in its first places `count`."""

    name: str
    backend: str
    case: Case
    kernel: str
    old: str
    new: str
    caught: str
    count: int = 0

    def __call__(self, kernel: str, ptx: str) -> str:
        if self.kernel not in kernel:
            return ptx
        changed, places = re.subn(self.old, self.new, ptx, count=self.count)
        assert places, f"{self.old} is not in the PTX of {kernel}"
        return changed


def swapped(first: int, second: int) -> dict[str, str]:
    return {"old": rf"_param_({first}|{second})\]", "new": f"_param_{second}]"}


MUTANTS = [
    Mutant("missing mask of a load", "triton", GAUSSIAN, "_forward", r"@%p\d+ ld\.global\.b16", "ld.global.b16",
           faults.OUT_OF_BOUNDS),
    Mutant("missing mask of a store", "triton", GAUSSIAN, "_forward", r"@%p\d+ st\.global\.b16", "st.global.b16",
           faults.OUT_OF_BOUNDS),
    Mutant("missing barrier", "triton", ASSEMBLY, "_sum_rows", r"bar\.sync\s+0;", "", faults.RACE, 1),
    Mutant("missing barrier before shared memory is used again", "triton", NORM, "_statistics",
           r"(?s)(bar\.sync\s+0;.*?)bar\.sync\s+0;", r"\1", faults.RACE, 1),
    Mutant("a barrier that one warp passes by", "triton", ASSEMBLY, "_sum_rows", r"\n\tret;",
           "\n.reg .pred %low; .reg .b32 %me; mov.u32 %me, %tid.x; setp.lt.u32 %low, %me, 32; @!%low bar.sync 0; ret;",
           faults.NOT_REACHED),
    Mutant("wrong shuffle distance", "triton", ASSEMBLY, "_backward", r" 16, 31, -1;", " 8, 31, -1;", WRONG),
    Mutant("swapped gradient: d_mu where d_x belongs", "triton", LOGNORMAL, "_backward",
           **swapped(10, 11), caught=UNWRITTEN),
    Mutant("wrong stride: bytes of a bfloat16 counted twice", "triton", LOGNORMAL, "_forward",
           r"(shl\.b64\s+\S+, \S+), 1;", r"\1, 2;", faults.OUT_OF_BOUNDS),
    Mutant("32-bit overflow of an offset", "triton", FAR, "_forward", r"(mul\.lo\.s64\s+(%rd\d+), .*?;)",
           r"\1 shl.b64 \2, \2, 32; shr.s64 \2, \2, 32;", faults.OUT_OF_BOUNDS),
    Mutant("a multiply-add that rounds twice", "triton", Case("lognormal_transition"), "_forward",
           r"fma\.rn\.f32\s+(\S+), (\S+), (\S+), (\S+);", r"mul.rn.f32 \1, \2, \3; add.rn.f32 \1, \1, \4;", ROUNDING),
    Mutant("a wrong constant of the noise", "triton", GAUSSIAN, "_forward", r"-766435501", "-766435503", WRONG),
    Mutant("division by a width of zero", "triton", GAUSSIAN, "_forward", r"(div\.s32\s+\S+, \S+), \S+;", r"\1, 0;",
           faults.DIVISION_BY_ZERO, 1),
    Mutant("a workspace that is read before it is filled", "triton", NORM, "_moments",
           r"@%p\d+ st\.global\.b64[^;]*;", "", faults.NEVER_WRITTEN),
    Mutant("a result that nobody stores", "triton", NORM, "_apply", r"@%p\d+ st\.global\.b16[^;]*;", "", UNWRITTEN, 1),
    Mutant("misaligned vectors", "cuda", LOGNORMAL, "transition_forward",
           r"(ld\.global\.nc\.v2\.u32 [^;]*\[%rd\d+)\]", r"\1+4]", faults.MISALIGNED),
    Mutant("a missing end of the loop over all threads", "cuda", LOGNORMAL, "transition_forward", r"@%p1 bra",
           "@!%p1 bra", faults.OUT_OF_BOUNDS, 1),
    Mutant("a shuffle whose mask names half of the warp", "cuda", ASSEMBLY, "sum_parts", r"mov\.u32\s+(%r\d+), -1;",
           r"mov.u32 \1, 65535;", faults.NOT_REACHED),
    Mutant("half of the warp is added", "cuda", ASSEMBLY, "sum_parts", r"mov\.u32\s+(%r\d+), 16;",
           r"mov.u32 \1, 8;", WRONG),
    Mutant("an input is written", "cuda", LOGNORMAL, "transition_forward",
           r"(?s)(ld\.global\.nc\.v2\.u32 [^;]*\[(%rd\d+)\];.*?st\.global(?:\.wb)?\.v2\.u32\s+\[)%rd\d+(.*?;)",
           r"\1\2\3", faults.WRITE_TO_INPUT, 1),
    Mutant("a lane that hands its vector to another", "cuda", TRIPLES, "assembly_forward", r", 11;", ", 13;", WRONG),
    Mutant("the wrong plane of the deltas", "cuda", ASSEMBLY, "assembly_forward", r"mul\.lo\.s64", "add.s64",
           faults.OUT_OF_BOUNDS, 3),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_kernel_is_caught_by_name(mutant, compiling):
    if mutant.backend == "cuda" and (reason := cuda.missing()) is not None:
        pytest.skip(reason)
    compiling.submit(check, mutant.case, mutant.backend).result()  # as it is, nothing is wrong
    with pytest.raises(AssertionError, match=re.escape(mutant.caught)):
        compiling.submit(check, mutant.case, mutant.backend, edited=mutant).result()
