"""Measure whole models: restoration in megapixels per second (see `bench.restorers`), training in images per second.

A case is skipped, and named, if a package that f2d needs is missing.
"""

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure import RedGateError, Row, Settings
from bench.memory import peak_bytes
from bench.plain_norms import with_plain_norms
from bench.registry import Case
from bench.timing import Thunk, interleaved
from f2d_kernels import use_backend

# Training: largest difference between the losses, relative to the loss. In bf16 networks rounding errors pass through
# every layer.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def _case(name: str, quick: bool = False, gpu_only: bool = False) -> Case:
    """Return the case of a name such as "paper/train/64x64/b2/bf16"."""
    _, stage, size, *batch, dtype = name.split("/")
    width, height = map(int, size.split("x"))
    images, kind = int(batch[0][1:]) if batch else 1, torch.bfloat16 if dtype == "bf16" else torch.float32
    op = "restore" if stage == "restore" else "train_step"
    return Case(op, name, images, 3, height, width, kind, quick=quick, options={"gpu_only": gpu_only})


# without the engine, the paper's model takes 20 s for a 512x512 photograph on two cores
MODELS = {
    "restore": (
        _case("lite/restore/1080x720/bf16", quick=True),
        _case("lite/restore/1080x720/f32"),
        _case("base/restore/512x512/bf16"),
        _case("base/restore/512x512/f32"),
        _case("paper/restore/256x256/bf16", quick=True),
        _case("paper/restore/256x256/f32"),
        _case("paper/restore/512x512/bf16"),
        _case("paper/restore/512x512/f32"),
        _case("paper/restore/1080x720/bf16", gpu_only=True),
    ),
    "train_step": (
        _case("lite/train/128x128/b8/bf16"),
        _case("lite/train/64x64/b2/bf16", quick=True),
        _case("lite/train/64x64/b2/f32"),
        _case("paper/train/64x64/b2/bf16"),
        _case("paper/train/64x64/b2/f32"),
        _case("lite/train/256x256/b2/f32"),
        _case("base/train/256x256/b2/bf16"),
        _case("paper/train/256x256/b2/bf16", gpu_only=True),
    ),
}


class ModelMeasurement:
    """Measures several implementations of whole models with the same weights and inputs."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def rows(self, case: Case) -> Iterator[list[Row]]:
        """Yield one list of rows. Raises ImportError if a package is missing, and RedGateError if a result is wrong."""
        device, restore = self.settings.device, case.op == "restore"
        mode = "forward" if restore else "both"
        if mode not in self.settings.modes:
            return
        torch.manual_seed(0)
        implementations = _restoring(case, device) if restore else _training(case, device)
        implementations = [one for one in implementations if one.role == "ours" or self.settings.wants(one)]
        blocks = {one.name: partial(_block, one) for one in implementations}
        times = interleaved(blocks, device, self.settings.samples, self.settings.seconds)
        amount = case.batch * (case.height * case.width / 1e6 if restore else 1.0)
        unit, found = "MP/s" if restore else "images/s", []
        for one in implementations:
            with _block(one) as (step,):
                peak = peak_bytes(step, device) / 2**20
            row = Row.of(case, mode, one.name, one.role, times[one.name], peak_mib=peak, unit=unit)
            found.append(replace(row, rate=amount / (row.ms / 1e3)))
        gc.collect()
        yield found


@dataclass(frozen=True)
class Implementation:
    """One implementation of a step: its name and role in the table, and the backend of our ops."""

    name: str
    role: str
    step: Callable[[], Tensor]
    backend: str = "auto"


@contextmanager
def _block(implementation: Implementation) -> Iterator[list[Thunk]]:
    with use_backend(implementation.backend):
        yield [implementation.step]


def _restoring(case: Case, device: torch.device) -> list[Implementation]:
    from bench.restorers import problem, restorers

    found = restorers(case, device)
    wrong = problem(case, {name: step() for name, (_, step) in found.items()})
    if wrong:
        raise RedGateError(f"{case.op} {case.name}: {wrong}")
    return [Implementation(name, role, step) for name, (role, step) in found.items()]


def _network(case: Case, device: torch.device) -> Any:
    from f2d.nets import F2DNet

    net = F2DNet.from_preset(f"f2d-{case.name.split('/')[0]}").to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # heads start at zero and would hide the experts' outputs
                parameter.normal_(std=0.02)
    return net


def _training(case: Case, device: torch.device) -> list[Implementation]:
    """Return a training step on one prepared batch with our ops, the reference ops, and PyTorch's own modules."""
    net = _network(case, device).train()
    ours, plain = _training_step(case, net, device), _training_step(case, with_plain_norms(copy.deepcopy(net)), device)
    _agree(case, ours, plain)
    return [
        Implementation("our ops", "ours", ours),
        Implementation("reference ops", "reference", ours, backend="reference"),
        Implementation("group_norm, silu of PyTorch", "eager", plain, backend="reference"),
    ]


def _training_step(case: Case, net: nn.Module, device: torch.device) -> Callable[[], Tensor]:
    from f2d.data import Batch
    from f2d.training.objectives import objective_of
    from f2d.training.recipe import LossWeights, Recipe

    factors, recipe = 4, Recipe()
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        *(torch.rand(case.image, generator=generator).to(device) for _ in range(2)),
        torch.rand((case.batch, factors, case.height, case.width), generator=generator).to(device),
        torch.ones((case.batch, factors), device=device),
        torch.arange(case.batch, device=device),
        ("low_haze_rain",) * case.batch,
    )
    objective = objective_of(net, LossWeights(), recipe.one_call_fraction)
    # the learning rate is 0, so that every step does the same work
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0, betas=recipe.betas, weight_decay=recipe.weight_decay)

    def step() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=case.dtype == torch.bfloat16):
            loss = objective(net, batch).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _agree(case: Case, ours: Callable[[], Tensor], plain: Callable[[], Tensor]) -> None:
    """Raise RedGateError unless the losses of all implementations agree with that of PyTorch's modules."""
    results = []
    for backend, step in (("auto", ours), ("reference", ours), ("reference", plain)):
        with use_backend(backend):
            results.append(step().detach().double())
    difference = max((result - results[-1]).abs().item() for result in results)
    allowed = TOLERANCE[case.dtype] * results[-1].abs().item()
    if not difference <= allowed:
        raise RedGateError(f"{case.op} {case.name}: losses differ by {difference:.2e}, allowed {allowed:.2e}")
