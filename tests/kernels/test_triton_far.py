"""Images at the end of what 32 bits count, without their memory: every pixel of a channel is one element of stride 0.

Only the first and the last program of each sample run, and each may write to its own sample alone.
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from f2d_kernels.triton import unavailable_reason

from .cases import DEVICE
from .test_triton_launches import LAUNCHERS, launching

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
if DEVICE != "cpu" or (reason := unavailable_reason(DEVICE)) is not None:
    pytest.skip("runs single programs of Triton's interpreter", allow_module_level=True)

from triton.runtime import interpreter  # noqa: E402

from f2d_kernels.triton import (  # noqa: E402
    _launch,
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
)

NAN, BATCH = float("nan"), 2
SIZES = [(1, 2**31 - 1), (1, 2**31 - 4), (2**31 - 4, 1), (2, 2**30 - 512), (2, 2**30)]
OF_TILES = {
    "_sum_rows_kernel",
    "_combine_kernel",
    "_statistics_kernel",
}  # walk over sums of tiles, far fewer than 2^31


@triton.jit
def block_count_kernel(out, size, BLOCK: tl.constexpr, INDEX: tl.constexpr):
    tl.store(out, _launch.block_count(size, BLOCK, INDEX).to(tl.int64))


@pytest.mark.parametrize("block", [32, 1024, 2**15])
@pytest.mark.parametrize("size", [1, 31, 2**31 - 2**16 - 1, 2**31 - 2**16, 2**31 - 1023, 2**31 - 1, 2**31, 2**33 - 1])
def test_blocks_are_counted_right_up_to_2_to_the_31_and_beyond(size, block):
    out = torch.zeros(1, dtype=torch.int64)
    block_count_kernel[(1,)](out, size, BLOCK=block, INDEX=_launch.index_type(size))
    assert out.item() == -(-size // block)


class Cells:
    """Images of which only one element a channel exists, and rows before and behind them that nobody may write."""

    def __init__(self, size: tuple[int, int]):
        self.size, self.rows = size, []

    def read(self, channels: int = 1) -> Tensor:
        return torch.ones(1).expand(BATCH, channels, *self.size)

    def written(self, *shape: int) -> Tensor:
        """[B, *shape, H, W]"""
        rows = torch.full((BATCH + 2, *shape), NAN)
        self.rows.append(rows)
        return rows[1:-1, ..., None, None].expand(BATCH, *shape, *self.size)

    def partials(self, shape, dtype, like) -> Tensor:
        """In memory that is touched only where a program writes."""
        return torch.empty((shape[0] + 2, *shape[1:]), dtype=dtype)[1:-1]

    def touched(self) -> set[int]:
        return {b - 1 for rows in self.rows for b in range(BATCH + 2) if not rows[b].isnan().all()}


def assembly(cells: Cells):
    schedule, maps = torch.ones(BATCH, 2), cells.read(2)
    deltas = [cells.read() for _ in range(2)]
    expert_assembly.forward(cells.written(1), deltas, schedule, maps, cells.read())
    d_deltas = [cells.written(1) for _ in range(2)]
    expert_assembly.backward(cells.read(), deltas, schedule, maps, d_deltas, None, cells.written(2))


def head(cells: Cells):
    small = torch.ones(2, 1, 3), torch.ones(2, 1), torch.ones(BATCH, 2, 3), torch.ones(BATCH, 2)
    features, maps = [cells.read(3) for _ in range(2)], cells.read(2)
    expert_head.forward(cells.written(1), features, *small, maps, cells.read())
    d_features = [cells.written(3) for _ in range(2)]
    none = (None,) * 4
    expert_head.backward(cells.read(), features, *small, maps, d_features, *none, cells.written(2))


def norm(cells: Cells):
    statistics = [torch.ones(BATCH, 1, dtype=torch.float64) for _ in range(2)]
    group_norm_silu.forward(cells.written(1), None, *statistics, cells.read(), 1, None, None, None, None, 1e-5)
    none = (None,) * 4
    group_norm_silu.backward(cells.read(), None, *statistics, cells.read(), *none, cells.written(1), *none)


def noise(cells: Cells, seeded: bool) -> tuple:
    return (None, torch.tensor([7]), 3, 8, 0) if seeded else (cells.read(), None, 0, 0, 0)


def transition(cells: Cells, seeded: bool = True):
    arguments = cells.read(), cells.read(), torch.zeros(BATCH), torch.ones(BATCH), *noise(cells, seeded)
    lognormal_transition.forward(cells.written(1), *arguments)
    d_noise = None if seeded else cells.written(1)
    lognormal_transition.backward(cells.read(), *arguments, cells.written(1), cells.written(1), None, None, d_noise)


def gaussian(cells: Cells, seeded: bool = True):
    arguments = [cells.read(), cells.read()], torch.ones(BATCH, 2), torch.ones(BATCH), *noise(cells, seeded)
    gaussian_transition.forward(cells.written(1), *arguments)
    gaussian_transition.backward(cells.read(), *arguments, [cells.written(1), cells.written(1)], None, None, None)


def transport(cells: Cells, seeded: bool = True):
    experts = [cells.read() for _ in range(2)], torch.ones(BATCH, 2), cells.read(2), cells.read()
    schedule = torch.zeros(BATCH), torch.ones(BATCH)
    arguments = cells.read(), *experts, *schedule, None, -1.0, 1.0, *noise(cells, seeded)
    transport_step.forward(cells.written(1), cells.written(1), *arguments)
    gradients = cells.written(1), [cells.written(1), cells.written(1)], None, cells.written(2), cells.written(1)
    transport_step.backward(cells.read(), cells.read(), *arguments, *gradients, None, None, None)


OPS = {
    "assembly": assembly,
    "head": head,
    "norm": norm,
    "transition": transition,
    "gaussian": gaussian,
    "transport": transport,
    "transition given noise": lambda cells: transition(cells, seeded=False),
    "transport given noise": lambda cells: transport(cells, seeded=False),
}


@contextmanager
def one_program(number: int):
    handle = interpreter.TensorHandle(np.array([number], dtype=np.int32), tl.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.interpreter_builder, "create_get_program_id", lambda axis: handle)
        # arguments are on the CPU already; copying them back would touch all of the memory
        patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
        yield


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_each_program_writes_to_its_own_sample(op, size):
    cells, programs_run = Cells(size), []

    def launch(kernel, programs, device, *arguments, tuned=True, **constants) -> None:
        if kernel.fn.__name__ in OF_TILES:
            for sums in arguments:  # not computed here: zeros in place of what the memory happened to hold
                if isinstance(sums, torch.Tensor) and sums.dtype == torch.float64:
                    sums.zero_()
            return
        assert programs % BATCH == 0 and programs < 2**31
        each = programs // BATCH
        for number in (0, each - 1, each, programs - 1):
            for rows in cells.rows:
                rows.fill_(NAN)
            with one_program(number):
                kernel[(1,)](*arguments, **constants)
            programs_run.append((kernel.fn.__name__, number))
            if kernel.fn.__name__ not in ("_moments_kernel", "_gradient_sums_kernel"):  # write sums of tiles only
                assert cells.touched() == {number // each}, f"program {number} of {kernel.fn.__name__}"

    with pytest.MonkeyPatch.context() as patch:
        for module in LAUNCHERS:
            if hasattr(module, "empty_partials"):
                patch.setattr(module, "empty_partials", cells.partials)
        with launching(launch):
            OPS[op](cells)
    assert len({name for name, _ in programs_run}) >= 2


def test_the_channels_of_an_image_count_too():
    assert _launch.index_type(1, 2**31 - 10) == tl.int64
    assert _launch.index_type(2**31 - 2**16 - 1, 3) == tl.int32
