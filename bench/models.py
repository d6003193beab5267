"""Whole models: restoring in megapixels per second (see `bench.restoring`), training in images per second.

They need the packages that f2d needs; where one is missing the case is left out, by name.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial

import torch
from torch import Tensor

from bench.measure import RedGateError, Row, Settings
from bench.memory import peak_bytes
from bench.registry import Case
from bench.timing import Thunk, Times, interleaved
from f2d_kernels import use_backend

# Training, our ops by the reference: largest difference as a share of the largest magnitude. bf16 networks: roundings
# move through every layer.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def _case(op: str, name: str, batch: int, height: int, width: int, quick: bool = False, gpu_only: bool = False) -> Case:
    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    return Case(op, name, batch, 3, height, width, dtype, quick=quick, options={"gpu_only": gpu_only})


# the paper model at 512x512 takes 20 s a photograph on two cores without the engine
MODELS = {
    "restore": (
        _case("restore", "lite/restore/1080x720/bf16", 1, 720, 1080, quick=True),
        _case("restore", "lite/restore/1080x720/f32", 1, 720, 1080),
        _case("restore", "base/restore/512x512/bf16", 1, 512, 512),
        _case("restore", "base/restore/512x512/f32", 1, 512, 512),
        _case("restore", "paper/restore/256x256/bf16", 1, 256, 256, quick=True),
        _case("restore", "paper/restore/256x256/f32", 1, 256, 256),
        _case("restore", "paper/restore/512x512/bf16", 1, 512, 512),
        _case("restore", "paper/restore/512x512/f32", 1, 512, 512),
        _case("restore", "paper/restore/1080x720/bf16", 1, 720, 1080, gpu_only=True),
    ),
    "train_step": (
        _case("train_step", "lite/train/128x128/b8/bf16", 8, 128, 128, quick=True),
        _case("train_step", "lite/train/256x256/b2/f32", 2, 256, 256),
        _case("train_step", "base/train/256x256/b2/bf16", 2, 256, 256),
        _case("train_step", "paper/train/256x256/b2/bf16", 2, 256, 256, gpu_only=True),
    ),
}


class ModelMeasurement:
    """Measures whole models, several ways with the same weights and inputs."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def rows(self, case: Case) -> Iterator[list[Row]]:
        """One list of rows. ImportError where a package is missing; RedGateError where a way is wrong."""
        device, restore = self.settings.device, case.op == "restore"
        mode = "forward" if restore else "both"
        if mode not in self.settings.modes:
            return
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*self.log.*")
            ways = _restoring(case, device) if restore else _training(case, device)
            ways = [way for way in ways if way.role == "ours" or self._wanted(way)]
            blocks = {way.name: partial(_block, way) for way in ways}
            times = interleaved(blocks, device, self.settings.samples, self.settings.seconds)
            found = []
            for way in ways:
                with _block(way) as (step,):
                    peak = peak_bytes(step, device) / 2**20
                found.append(replace(_row(case, mode, way, times[way.name]), peak_mib=peak))
        gc.collect()
        amount = case.batch * (case.height * case.width / 1e6 if restore else 1.0)
        unit = "MP/s" if restore else "images/s"
        yield [replace(row, rate=amount / (row.ms / 1e3), unit=unit) for row in found]

    def _wanted(self, way: "Way") -> bool:
        return any(fnmatch(way.name, pattern) or fnmatch(way.role, pattern) for pattern in self.settings.providers)


@dataclass(frozen=True)
class Way:
    """One way to do a step: its name and role in the table, and the backend of our ops it runs on."""

    name: str
    role: str
    step: Callable[[], Tensor]
    backend: str = "auto"


@contextmanager
def _block(way: Way) -> Iterator[list[Thunk]]:
    with use_backend(way.backend):
        yield [way.step]


def _row(case: Case, mode: str, way: Way, times: Times) -> Row:
    return Row(case.op, case.name, "", mode, way.name, way.role, times.median, times.p20, times.p80, times.samples)


def _restoring(case: Case, device: torch.device) -> list[Way]:
    from bench import restoring

    found = restoring.ways(case, device)
    wrong = restoring.problem(case, {name: step() for name, (_, step) in found.items()})
    if wrong:
        raise RedGateError(f"{case.op} {case.name}: {wrong}")
    return [Way(name, role, step) for name, (role, step) in found.items()]


def _network(case: Case, device: torch.device):
    from f2d.nets import F2DNet

    net = F2DNet.from_preset(f"f2d-{case.name.split('/')[0]}").to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # heads start at zero and would hide what the experts say
                parameter.normal_(std=0.02)
    return net


def _training(case: Case, device: torch.device) -> list[Way]:
    """Forward, backward and optimiser of one batch that is already there, with our ops and the reference."""
    from f2d.training.data import Batch
    from f2d.training.module import TransportModule
    from f2d.training.recipe import Recipe

    factors = 4
    batch = Batch(
        torch.rand(case.image, device=device),
        torch.rand(case.image, device=device),
        torch.rand((case.batch, factors, case.height, case.width), device=device),
        torch.ones((case.batch, factors), device=device),
        torch.arange(case.batch, device=device),
    )
    module = TransportModule(Recipe(), _network(case, device), batch).to(device).train()
    optimizer = module.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the weights stay what they are, so that every step is the same work

    def step() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=case.dtype == torch.bfloat16):
            loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    _agree(case, step)
    return [Way("our ops", "ours", step), Way("reference ops", "eager", step, backend="reference")]


def _agree(case: Case, step: Callable[[], Tensor]) -> None:
    results = []
    for backend in ("auto", "reference"):
        torch.manual_seed(1)
        with use_backend(backend):
            results.append(step().detach().double())
    difference = (results[0] - results[1]).abs().max().item()
    allowed = TOLERANCE[case.dtype] * results[1].abs().max().item()
    if not difference <= allowed:
        raise RedGateError(f"{case.op} {case.name}: backends differ by {difference:.2e}, allowed {allowed:.2e}")
