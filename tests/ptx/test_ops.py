"""Every kernel that the launchers of the six ops start, Triton's and CUDA C++'s, forward and backward, as the compiler
made it: right by the error rule, equal to the C++ backend where that is promised, and without a fault."""

import functools

import pytest
import torch

from bench.ptx import cuda
from tests.ptx.check import check
from tests.ptx.ops import WINDOW, Case

pytest.importorskip("triton")

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
SLOW = functools.partial(pytest.param, marks=pytest.mark.slow)
ASSEMBLY, LOGNORMAL, TRANSPORT = "expert_assembly", "lognormal_transition", "transport_step"
GAUSSIAN, HEAD, NORM = "gaussian_transition", "expert_head", "group_norm_silu"
ODD = (5, 13)

QUICK = [
    Case(ASSEMBLY, BF16),
    Case(LOGNORMAL, BF16),
    Case(TRANSPORT, BF16, size=ODD, layout="channels_last"),
]
TRITON_ONLY = [
    Case(GAUSSIAN, BF16, size=ODD, window=WINDOW),
    Case(HEAD, F32),
    Case(NORM, BF16, channels=4, size=(33, 63), options={"groups": 2}),
]
FULL = [
    *(Case(op, dtype, layout, size) for op in (ASSEMBLY, LOGNORMAL, TRANSPORT)
      for dtype, layout, size in ((F32, "contiguous", (8, 16)), (F32, "channels_last", (4, 24)), (BF16, "sliced", ODD),
                                  (F16, "contiguous", (16, 16)), (F64, "contiguous", ODD), (F32, "expanded", (4, 8)),
                                  (BF16, "channels_last", (8, 8)))),
    *(Case(op, F32, size=size, channels=c, batch=b) for op in (ASSEMBLY, LOGNORMAL, TRANSPORT)
      for size, c, b in (((1, 1), 1, 1), ((3, 11), 31, 1), ((1, 257), 1, 2), ((33, 31), 2, 1))),
    *(Case(ASSEMBLY, dtype, options=options) for dtype in (F32, BF16) for options in (
        {"experts": 1, "bare": True}, {"experts": 9}, {"per_channel": True}, {"shared": True}, {"listed": True})),
    *(Case(LOGNORMAL, dtype, noise="given", size=size) for dtype in (F32, BF16) for size in ((8, 16), ODD)),
    Case(LOGNORMAL, F32, window=WINDOW),
    Case(LOGNORMAL, F32, layout="channels_last", noise="given"),
    *(Case(TRANSPORT, dtype, options=options) for dtype in (F32, BF16) for options in (
        {"experts": 2, "anchor": True}, {"experts": 1, "bare": True}, {"per_channel": True, "experts": 3},
        {"shared": True}, {"experts": 5, "listed": True}, {"experts": 10})),
    # large enough that a warp does all channels, one pass the gradients of all experts, and a lane 16 bytes of bfloat16
    *(Case(op, dtype, size=(260, 264), channels=2, batch=1) for op in (ASSEMBLY, TRANSPORT) for dtype in (F32, BF16)),
    Case(LOGNORMAL, BF16, size=(260, 264), channels=2, batch=1),
    # channels_last: large enough that a warp exchanges images of three channels
    *(Case(op, dtype, "channels_last", (264, 261), batch=1, window=WINDOW) for op in (ASSEMBLY, LOGNORMAL, TRANSPORT)
      for dtype in (F32, BF16)),
    *(Case(TRANSPORT, dtype, "channels_last", (264, 261), batch=1, options={"frozen": True}) for dtype in (F32, BF16)),
    Case(ASSEMBLY, F32, "channels_last", (264, 261), batch=1, options={"packed": True, "experts": 2}),
    Case(TRANSPORT, BF16, size=(260, 264), channels=2, batch=1, options={"frozen": True}),
    Case(TRANSPORT, F16, size=(132, 256), channels=2, batch=1),
    Case(ASSEMBLY, BF16, "channels_last", (164, 166), channels=5, batch=1, options={"experts": 2}),
    # offsets beyond 2^31
    *(Case(op, BF16, "far") for op in (ASSEMBLY, LOGNORMAL, TRANSPORT)),
    Case(ASSEMBLY, F64, options={"shared": True}),
    Case(TRANSPORT, F32, noise="given"),
    Case(TRANSPORT, BF16, window=WINDOW),
]  # fmt: skip
FULL_TRITON = [
    *(Case(GAUSSIAN, dtype, layout, noise=noise, options={"terms": terms}) for dtype, layout, noise, terms in (
        (F32, "contiguous", "seed", 4), (BF16, "channels_last", "given", 2), (F64, "sliced", "seed", 1),
        (F16, "contiguous", "none", 3), (F32, "expanded", "seed", 2))),
    *(Case(HEAD, dtype, layout, size, channels=c, options={"experts": k, "features": f})
      for dtype, layout, size, c, k, f in (
        (BF16, "contiguous", (16, 32), 3, 2, 8), (F32, "channels_last", ODD, 3, 2, 4),
        (BF16, "channels_last", (8, 8), 5, 1, 9),
        (F64, "sliced", ODD, 2, 2, 3), (F32, "contiguous", ODD, 24, 1, 3), (BF16, "contiguous", (4, 4), 3, 9, 2),
        # several blocks of features, whose last is not full, for one and for two chunks of channels
        (BF16, "contiguous", (4, 16), 40, 1, 9), (F32, "channels_last", ODD, 70, 1, 9),
        (F32, "contiguous", (1, 1), 1, 1, 1))),
    *(Case(NORM, dtype, layout, size, channels=c, options={"groups": groups})
      for dtype, layout, size, c, groups in (
        (F32, "contiguous", (8, 16), 8, 2), (BF16, "channels_last", (9, 7), 8, 4),
        (F32, "channels_last", (40, 33), 6, 1), (F32, "contiguous", (129, 256), 2, 1),
        (F64, "contiguous", ODD, 4, 2), (F32, "contiguous", (1, 2), 2, 1), (F16, "sliced", (30, 37), 4, 1))),
]  # fmt: skip

needs_nvcc = pytest.mark.skipif(cuda.missing() is not None, reason=str(cuda.missing()))


@pytest.mark.parametrize("case", [*QUICK, *TRITON_ONLY, *map(SLOW, [*FULL, *FULL_TRITON])], ids=str)
def test_triton(case, compiling):
    compiling.submit(check, case, "triton").result()


@needs_nvcc
@pytest.mark.parametrize("case", [*QUICK, *map(SLOW, FULL)], ids=str)
def test_cuda(case, compiling):
    compiling.submit(check, case, "cuda").result()
