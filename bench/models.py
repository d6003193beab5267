"""Whole models: restoring in megapixels per second, training in images per second, with our ops and the reference.

They need the packages that f2d needs; where one is missing the case is left out, by name.
"""

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bench.measure import RedGateError, Row, Settings
from bench.memory import peak_bytes
from bench.registry import Case
from bench.timing import Thunk, Times, interleaved
from f2d_kernels import use_backend

# role -> backend; "reference" plays the part of eager PyTorch
BACKENDS = {"ours": "auto", "eager": "reference"}
# Largest difference of the two, as a share of the largest magnitude. bf16 networks: roundings move through every layer.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def _case(op: str, name: str, batch: int, height: int, width: int, quick: bool = False, gpu_only: bool = False) -> Case:
    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    return Case(op, name, batch, 3, height, width, dtype, quick=quick, options={"gpu_only": gpu_only})


# paper at 1080x720 takes half a minute per photograph on two processor cores
MODELS = {
    "restore": (
        _case("restore", "lite/restore/1080x720/f32", 1, 720, 1080),
        _case("restore", "lite/restore/1080x720/bf16", 1, 720, 1080, quick=True),
        _case("restore", "base/restore/512x512/bf16", 1, 512, 512),
        _case("restore", "paper/restore/256x256/bf16", 1, 256, 256),
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
    """Measures whole models: the same weights and inputs, once with our ops, once with the reference."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def rows(self, case: Case) -> Iterator[list[Row]]:
        """One list of rows. ImportError where a package is missing; RedGateError where the two backends disagree."""
        device = self.settings.device
        torch.manual_seed(0)
        step, amount, unit, mode = (_restoring if case.op == "restore" else _training)(case, device)
        if mode not in self.settings.modes:
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*self.log.*")
            _agree(case, step)

            @contextmanager
            def block(backend: str) -> Iterator[list[Thunk]]:
                with use_backend(backend):
                    yield [step]

            blocks = {role: partial(block, backend) for role, backend in BACKENDS.items()}
            times = interleaved(blocks, device, self.settings.samples, self.settings.seconds)
            found = []
            for role, backend in BACKENDS.items():
                with use_backend(backend):
                    peak = peak_bytes(step, device) / 2**20
                found.append(replace(_row(case, mode, role, times[role]), peak_mib=peak, unit=unit))
        gc.collect()
        yield [replace(row, rate=amount / (row.ms / 1e3)) for row in found]


def _row(case: Case, mode: str, role: str, times: Times) -> Row:
    name = "our ops" if role == "ours" else "reference ops"
    return Row(case.op, case.name, "", mode, name, role, times.median, times.p20, times.p80, times.samples)


def _agree(case: Case, step: Callable[[], Tensor]) -> None:
    results = []
    for backend in BACKENDS.values():
        torch.manual_seed(1)
        with use_backend(backend):
            results.append(step().detach().double())
    difference = (results[0] - results[1]).abs().max().item()
    allowed = TOLERANCE[case.dtype] * results[1].abs().max().item()
    if not difference <= allowed:
        raise RedGateError(f"{case.op} {case.name}: backends differ by {difference:.2e}, allowed {allowed:.2e}")


def _network(case: Case, device: torch.device):
    from f2d.nets import F2DNet

    net = F2DNet.from_preset(f"f2d-{case.name.split('/')[0]}").to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # heads start at zero and would hide what the experts say
                parameter.normal_(std=0.02)
    return net


def _restoring(case: Case, device: torch.device) -> tuple[Callable[[], Tensor], float, str, str]:
    """As `f2d restore` does it, tensor to tensor: (step, megapixels, unit, mode)."""
    from f2d.execution import choose_execution
    from f2d.restorer import Restorer

    precision = "bf16" if case.dtype == torch.bfloat16 else "float32"
    restorer = Restorer(_network(case, device), choose_execution(str(device), precision))
    image = torch.rand(case.image, device=device)
    megapixels = case.batch * case.height * case.width / 1e6
    return lambda: restorer.restore_batch(image, seed=7), megapixels, "MP/s", "forward"


def _training(case: Case, device: torch.device) -> tuple[Callable[[], Tensor], float, str, str]:
    """Forward, backward and optimiser of one batch that is already there: (step, images, unit, mode)."""
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

    return step, float(case.batch), "images/s", "both"
