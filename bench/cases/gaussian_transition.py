"""Σ_j coefficients · terms + std · eps: the step of other restorers' processes, one to four images and noise."""

import torch
from torch import Tensor

from bench.cases.stages import stage_case
from bench.registry import Arguments, Case, Op, Traffic, draw, uniform
from f2d_kernels import gaussian_transition

# number of terms of the process that a case is named after
TERMS = {"ddim": 2, "irsde": 2, "resshift": 3, "rddm": 3, "goub": 4}
NAMES = {
    "paper/restore/1080x720/f32/ddim/seed": True,
    "paper/restore/1080x720/bf16/resshift/seed": False,
    "paper/restore/512x512/f32/goub/seed": False,
    "paper/train/256x256/b8/f32/irsde/seed": True,
    "paper/train/512x512/b2/bf16/rddm/seed": False,
    "paper/restore/1080x720/f32/irsde/noise": True,
    "paper/restore/512x512/bf16/goub/noise": False,
    "paper/train/256x256/b8/f32/rddm/noise": False,
}


def inputs(case: Case, device: torch.device) -> Arguments:
    terms = case.options["terms"]
    arguments = {
        "terms": [draw(case.image, case, device) for _ in range(terms)],
        "coefficients": uniform((case.batch, terms), -1, 1, device),
        "std": uniform((case.batch,), 0.1, 1, device),
    }
    return arguments | ({"noise": draw(case.image, case, device)} if case.variant == "noise" else {"seed": 7})


def by_loop(
    terms: list[Tensor], coefficients: Tensor, std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    noise = torch.randn_like(terms[0]) if noise is None else noise
    columns = coefficients.to(noise.dtype).unbind(1)
    total = std.to(noise.dtype).view(-1, 1, 1, 1) * noise
    for coefficient, term in zip(columns, terms):
        total = total + coefficient.view(-1, 1, 1, 1) * term
    return total


def by_addcmul(
    terms: list[Tensor], coefficients: Tensor, std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    noise = torch.randn_like(terms[0]) if noise is None else noise
    total = std.to(noise.dtype).view(-1, 1, 1, 1) * noise
    for coefficient, term in zip(coefficients.to(noise.dtype).unbind(1), terms):
        total = torch.addcmul(total, coefficient.view(-1, 1, 1, 1), term)
    return total


def by_einsum(
    terms: list[Tensor], coefficients: Tensor, std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    noise = torch.randn_like(terms[0]) if noise is None else noise
    weights = torch.cat([coefficients, std[:, None]], 1).to(noise.dtype)
    return torch.einsum("bj,bjchw->bchw", weights, torch.stack([*terms, noise], 1))


def published(
    terms: list[Tensor], coefficients: Tensor, std: Tensor, noise: Tensor | None = None, seed: int | None = None
) -> Tensor:
    """Gather each coefficient from its table and expand it to full size; draw the noise separately."""
    noise = torch.randn_like(terms[0]) if noise is None else noise
    steps = torch.arange(len(std), device=std.device)

    def extract(table: Tensor) -> Tensor:
        return table.to(noise.dtype).gather(0, steps).view(-1, 1, 1, 1).expand(noise.shape)

    mean = extract(coefficients[:, 0]) * terms[0]
    for j, term in enumerate(terms[1:], 1):
        mean = mean + extract(coefficients[:, j]) * term
    return mean + extract(std) * noise


def forward(case: Case) -> Traffic:
    """(J + 1)·BCHW·e with a seed, one more with given noise: the terms (, noise) in, the result out."""
    reads = case.options["terms"] + int(case.variant == "noise")
    return Traffic(reads * case.image_bytes, case.image_bytes, reads, 1)


def backward(case: Case) -> Traffic:
    """g in, d_terms out: the coefficients are a schedule and need no gradient."""
    terms = case.options["terms"]
    return Traffic(case.image_bytes, terms * case.image_bytes, 1, terms)


OP = Op(
    name="gaussian_transition",
    cases=tuple(
        stage_case("gaussian_transition", name, channels=3, level=None, quick=quick, terms=TERMS[name.split("/")[-2]])
        for name, quick in NAMES.items()
    ),
    inputs=inputs,
    ours=gaussian_transition,
    exact=gaussian_transition,
    eager={"loop": by_loop, "addcmul": by_addcmul, "einsum": by_einsum},
    compiled="loop",
    published=published,
    gradients=("terms",),
    forward=forward,
    backward=backward,
    own_noise="std",
)
