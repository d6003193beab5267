"""mu + (x - mu) · exp(clamp(log_mean + log_std · eps)): one step of the transport, on the image itself."""

import torch
from torch import Tensor

from bench.cases.stages import stage_case
from bench.registry import Arguments, Case, Op, Traffic, draw, uniform
from f2d_kernels import lognormal_transition

# the transport runs in float32; other restorers use bf16
NAMES = {
    "paper/restore/1080x720/f32/seed": True,
    "paper/restore/1080x720/bf16/seed": False,
    "lite/restore/512x512/f32/nhwc/seed": False,
    "lite/train/256x256/b8/f32/seed": True,
    "paper/train/512x512/b2/bf16/seed": False,
    "paper/restore/1080x720/f32/noise": True,
    "paper/restore/512x512/bf16/noise": False,
    "lite/train/256x256/b8/f32/noise": False,
    "paper/train/512x512/b2/bf16/noise": False,
}


def inputs(case: Case, device: torch.device) -> Arguments:
    arguments = {
        "x": draw(case.image, case, device),
        "mu": draw(case.image, case, device),
        "log_mean": uniform((case.batch,), -0.2, 0, device),
        "log_std": uniform((case.batch,), 0.1, 0.4, device),
    }
    if case.variant == "noise":
        return arguments | {"noise": draw(case.image, case, device)}
    return arguments | {"seed": 7}


def formula(
    x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    """Evaluate the formula as written; where our op takes a seed, this draws from torch.randn."""
    noise = torch.randn_like(x) if noise is None else noise
    shape = (-1, 1, 1, 1)
    z = log_mean.to(x.dtype).view(shape) + log_std.to(x.dtype).view(shape) * noise
    return mu + (x - mu) * torch.exp(z.clamp(-20, 20))


def by_lerp(
    x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    noise = torch.randn_like(x) if noise is None else noise
    shape = (-1, 1, 1, 1)
    z = torch.addcmul(log_mean.to(x.dtype).view(shape), log_std.to(x.dtype).view(shape), noise)
    return torch.lerp(mu, x, z.clamp(-20, 20).exp())


def published(
    x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    """Gather the schedule from its table and expand it to full size; draw the noise separately."""
    noise = torch.randn_like(x) if noise is None else noise
    steps = torch.arange(len(x), device=x.device)
    full_mean = log_mean.to(x.dtype).gather(0, steps).view(-1, 1, 1, 1).expand(x.shape)
    full_std = log_std.to(x.dtype).gather(0, steps).view(-1, 1, 1, 1).expand(x.shape)
    return mu + (x - mu) * torch.exp(torch.clamp(full_mean + full_std * noise, -20, 20))


def forward(case: Case) -> Traffic:
    """3·BCHW·e with a seed, 4 with given noise: x, mu (, noise) in, the result out."""
    reads = 3 if case.variant == "noise" else 2
    return Traffic(reads * case.image_bytes, case.image_bytes, reads, 1)


def backward(case: Case) -> Traffic:
    """g (, noise) in; d_x = g f and d_mu = g (1 - f) out: without gradients of the schedule x and mu are not read."""
    reads = 2 if case.variant == "noise" else 1
    return Traffic(reads * case.image_bytes, 2 * case.image_bytes, reads, 2)


OP = Op(
    name="lognormal_transition",
    cases=tuple(
        stage_case("lognormal_transition", name, channels=3, level=None, quick=quick) for name, quick in NAMES.items()
    ),
    inputs=inputs,
    ours=lognormal_transition,
    exact=lognormal_transition,
    eager={"formula": formula, "lerp": by_lerp},
    compiled="formula",
    published=published,
    gradients=("x", "mu"),
    forward=forward,
    backward=backward,
    own_noise="log_std",
)
