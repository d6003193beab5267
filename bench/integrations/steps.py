"""One step of each method: in PyTorch as in its repository, and as one call of `f2d_kernels.integrations`."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations import (
    DDIM,
    GOUB,
    IRSDE,
    FoD,
    ResidualDiffusion,
    ResShift,
    channel_gates,
    mixture_of_experts,
    prompt_mixture,
)

SIZE = (1, 3, 512, 512)
T = 100
SEED = 7


@dataclass(frozen=True)
class Row:
    """One step in two versions, called as (*tensors, noise) -> tensor; noise None is drawn. shapes: of the tensors."""

    name: str
    published: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    random: bool = True


def source(noise: Tensor | None) -> dict[str, Any]:
    return {"seed": SEED} if noise is None else {"noise": noise}


def like(x: Tensor, noise: Tensor | None) -> Tensor:
    return torch.randn_like(x) if noise is None else noise


def cosine_rates(spread: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return theta, its sums, dt, sigma and a state's standard deviation, [T + 1] each, as in IR-SDE and GOUB."""
    place = torch.arange(T + 3, dtype=torch.float64) / (T + 2)
    level = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
    rate = (1 - (level / level[0])[1:-1]).float()
    total = rate.cumsum(0) - rate[0]
    dt = -1 / total[-1] * math.log(0.005)
    return rate, total, dt, (spread**2 * 2 * rate).sqrt(), (spread**2 * (1 - torch.exp(-2 * total * dt))).sqrt()


def mean_reverting(t: int = 40) -> Iterator[Row]:
    process, spread = IRSDE(10, T, eps=0.005), 10 / 255
    rate, total, dt, sigma, sigma_bar = cosine_rates(spread)

    def sde(x: Tensor, mu: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        score = -predicted / sigma_bar[t]
        drift = (rate[t] * (mu - x) - sigma[t] ** 2 * score) * dt
        return x - drift - sigma[t] * (like(x, noise) * dt.sqrt())

    def posterior(x: Tensor, mu: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        clean = (x - mu - sigma_bar[t] * predicted) * torch.exp(total[t] * dt) + mu
        a, b, c = (torch.exp(-v * dt) for v in (rate[t], total[t], total[t - 1]))
        mean = a * (1 - c**2) / (1 - b**2) * (x - mu) + c * (1 - a**2) / (1 - b**2) * (clean - mu) + mu
        variance = (1 - a**2) * (1 - c**2) / (1 - b**2)
        return mean + torch.exp(0.5 * torch.log(variance)) * spread * like(x, noise)

    def state(x_0: Tensor, mu: Tensor, noise: Tensor | None) -> Tensor:
        return mu + (x_0 - mu) * torch.exp(-total[t] * dt) + like(x_0, noise) * sigma_bar[t]

    for kind, published in (("sde", sde), ("posterior", posterior)):
        ours = partial(lambda x, mu, p, n, kind: process.step(x, mu, p, t, kind, **source(n)), kind=kind)
        yield Row(f"IR-SDE {kind}", published, ours, (SIZE,) * 3)
    yield Row("IR-SDE state", state, lambda x, mu, n: process.sample(x, mu, t, **source(n)), (SIZE,) * 2)


def bridge(t: int = 40) -> Iterator[Row]:
    process, spread = GOUB(30, T, eps=0.005), 30 / 255
    rate, total, dt, sigma, begun = cosine_rates(spread)
    left = (spread**2 * (1 - torch.exp(-2 * (total[-1] - total) * dt))).sqrt()

    def mean(x: Tensor, mu: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        score = -predicted / (begun[t] * left[t] / begun[-1])
        toward = torch.exp(2 * (total[t] - total[-1]) * dt)
        bridge = -(sigma[t] ** 2) * toward / left[t] ** 2 * (x - mu)
        return x - (rate[t] * (mu - x) + bridge - sigma[t] ** 2 * score) * dt

    def sde(x: Tensor, mu: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        return mean(x, mu, predicted, None) - sigma[t] * (like(x, noise) * dt.sqrt())

    yield Row("GOUB sde", sde, lambda x, mu, p, n: process.step(x, mu, p, t, "sde", **source(n)), (SIZE,) * 3)
    yield Row("GOUB mean_ode", mean, lambda x, mu, p, n: process.step(x, mu, p, t), (SIZE,) * 3, random=False)


def forward_only(t: int = 40) -> Iterator[Row]:
    theta, sigma2, dt = torch.linspace(0.01, 0.2, T), torch.linspace(0.02, 0.001, T), 0.5
    sigma = sigma2.sqrt()
    mean_bar = torch.cat([torch.zeros(1), -(theta + sigma2 / 2).cumsum(0) * dt])
    std_bar = torch.cat([torch.zeros(1), (sigma2.cumsum(0) * dt).sqrt()])
    process, clamped = FoD(theta, sigma2, dt), FoD(theta, sigma2, dt, clamp=(-1, 1))

    def markov(x: Tensor, flow: Tensor, noise: Tensor | None) -> Tensor:
        mu = x + flow
        log = -(theta[t] + 0.5 * sigma[t] ** 2) * dt + sigma[t] * math.sqrt(dt) * like(x, noise)
        return mu + (x - mu) * torch.exp(log)

    def euler(x: Tensor, flow: Tensor, noise: Tensor | None) -> Tensor:
        mu = (x + flow).clamp(-1, 1)
        return x + theta[t] * (mu - x) * dt + sigma[t] * (x - mu) * math.sqrt(dt) * like(x, noise)

    def non_markov(x: Tensor, flow: Tensor, x_0: Tensor, noise: Tensor | None) -> Tensor:
        mu = x + flow
        return mu + (x_0 - mu) * torch.exp(mean_bar[t + 1] + std_bar[t + 1] * like(x, noise))

    def state(x_0: Tensor, mu: Tensor, noise: Tensor | None) -> Tensor:
        return mu + (x_0 - mu) * torch.exp(mean_bar[t] + std_bar[t] * like(x_0, noise))

    yield Row("FoD MC", markov, lambda x, v, n: process.step(x, v, t, **source(n))[0], (SIZE,) * 2)
    yield Row("FoD EM", euler, lambda x, v, n: clamped.step(x, v, t, "EM", **source(n))[0], (SIZE,) * 2)
    ours = lambda x, v, x_0, n: process.step(x, v, t, "NMC", x_0, **source(n))[0]  # noqa: E731
    yield Row("FoD NMC", non_markov, ours, (SIZE,) * 3)
    yield Row("FoD state", state, lambda x_0, mu, n: process.sample(x_0, mu, t, **source(n)), (SIZE,) * 2)


def residual(t: int = 60, s: int = 50) -> Iterator[Row]:
    a, b, d = torch.linspace(0.01, 1, T), torch.linspace(0.01, 0.5, T).sqrt(), torch.linspace(0, 0.9, T)
    noisy = ResidualDiffusion(a, b, [t, s], eta=1.0, clip=1.0)
    shared = ResidualDiffusion(a, b, [t, s], delta_bar=d, clip=1.0, denoise=False)

    def rddm(x: Tensor, res: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        variance = (b[t] ** 2 - b[s] ** 2) * b[s] ** 2 / b[t] ** 2
        mean = x - (a[t] - a[s]) * res.clamp(-1, 1) - (b[t] - (b[s] ** 2 - variance).sqrt()) * predicted
        return mean + variance.sqrt() * like(x, noise)

    def diffuir(x: Tensor, res: Tensor, degraded: Tensor, noise: Tensor | None) -> Tensor:
        return x - (a[t] - a[s]) * res.clamp(-1, 1) + (d[t] - d[s]) * degraded

    yield Row("RDDM", rddm, lambda x, r, p, n: noisy.step(x, r, p, t, **source(n)), (SIZE,) * 3)
    yield Row("DiffUIR", diffuir, lambda x, r, y, n: shared.step(x, r, None, t, y), (SIZE,) * 3, random=False)


def shifting(t: int = 8) -> Iterator[Row]:
    eta = torch.linspace(0.04, 0.999, 15, dtype=torch.float64) ** 2
    process = ResShift(eta)
    last = torch.cat([torch.zeros(1, dtype=torch.float64), eta[:-1]])
    variance = 4 * last / eta * (eta - last)
    log = torch.log(torch.cat([variance[1:2], variance[1:]]))
    tables = [table.numpy() for table in (last / eta, 1 - last / eta, log)]
    batch = torch.full((1,), t)

    def look(table: Any, x: Tensor) -> Tensor:
        found = torch.from_numpy(table).to(device=x.device)[batch].float()
        return found[:, None, None, None].expand(x.shape)

    def published(x: Tensor, clean: Tensor, noise: Tensor | None) -> Tensor:
        mean = look(tables[0], x) * x + look(tables[1], x) * clean
        mask = (batch != 0).float().view(-1, 1, 1, 1)
        return mean + mask * torch.exp(0.5 * look(tables[2], x)) * like(x, noise)

    yield Row("ResShift", published, lambda x, x_0, n: process.step(x, x_0, t, **source(n)), (SIZE,) * 2)


def denoising(t: int = 60, s: int = 50) -> Iterator[Row]:
    a = (1 - torch.linspace(1e-3, 0.1, T)).cumprod(0)
    for name, eta, clip in (("DDIM", 0.0, None), ("DDIM clipped", 0.0, 1.0), ("DDPM", 1.0, None)):
        process = DDIM(a, [t, s], eta, clip=clip)

        def published(
            x: Tensor, predicted: Tensor, noise: Tensor | None, eta: float = eta, clip: float | None = clip
        ) -> Tensor:
            clean = (x - (1 - a[t]) ** 0.5 * predicted) / a[t] ** 0.5
            clean = clean if clip is None else clean.clamp(-clip, clip)
            std = eta * ((1 - a[s]) / (1 - a[t]) * (1 - a[t] / a[s])) ** 0.5
            out = a[s] ** 0.5 * clean + (1 - a[s] - std**2) ** 0.5 * predicted
            return out + std * like(x, noise) if eta else out

        ours = partial(lambda x, p, n, process: process.step(x, p, t, **source(n)), process=process)
        yield Row(name, published, ours, (SIZE,) * 2, random=eta > 0)


def mixtures() -> Iterator[Row]:
    def experts(outputs: Tensor, gates: Tensor, noise: None) -> Tensor:
        stacked = torch.stack(outputs.unbind(1), dim=1)
        return (gates.unsqueeze(2).unsqueeze(3).unsqueeze(4) * stacked).sum(dim=1)

    def prompts(param: Tensor, weights: Tensor, noise: None) -> Tensor:
        repeated = param.unsqueeze(0).repeat(len(weights), 1, 1, 1, 1, 1).squeeze(1)
        return torch.sum(weights[:, :, None, None, None] * repeated, dim=1)

    def gated(x: Tensor, mask: Tensor, gamma: Tensor, beta: Tensor, noise: None) -> Tensor:
        return (x * gamma + beta) * mask.unsqueeze(-1).unsqueeze(-1)

    wide = (2, 48, 128, 128)
    assembled = lambda o, g, n: mixture_of_experts(o.unbind(1), g)  # noqa: E731
    yield Row("MoCE-IR experts", experts, assembled, ((2, 2, *wide[1:]), (2, 2)), random=False)
    mixed = lambda p, w, n: prompt_mixture(p, w)  # noqa: E731
    yield Row("PromptIR prompts", prompts, mixed, ((1, 5, 64, 64, 64), (8, 5)), random=False)
    gates = lambda x, m, g, b, n: channel_gates(x, m, g, b)  # noqa: E731
    yield Row("InstructIR gates", gated, gates, (wide, wide[:2], (1, 48, 1, 1), (1, 48, 1, 1)), random=False)


FAMILIES = (mean_reverting, bridge, forward_only, residual, shifting, denoising, mixtures)
