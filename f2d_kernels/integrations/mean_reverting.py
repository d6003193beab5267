"""IR-SDE, Refusion, DA-CLIP: an SDE that reverts to the degraded image.

    # before: IRSDE of image-restoration-sde; its own default of eps is 0.01, its options files give 0.005
    sde = IRSDE(max_sigma=10, T=100, schedule="cosine", eps=0.005)
    sde.set_mu(mu)
    x = mu + sde.max_sigma * torch.randn_like(mu)
    for t in reversed(range(1, sde.T + 1)):
        score = sde.get_score_from_noise(model(x, mu, t), t)
        x = sde.reverse_sde_step(x, score, t)

    # after
    sde = IRSDE(max_sigma=10, steps=100, schedule="cosine", eps=0.005)
    x = mu + 10 / 255 * torch.randn_like(mu)
    for t in sde.times:
        x = sde.step(x, mu, model(x, mu, t), t, "sde", seed=7)

Neither clips anything. DA-CLIP and Refusion sample a model trained on T times in `sample_T` steps: pass steps=sample_T,
so that eps ends the shorter schedule, and call the model with t * T / sample_T, as they do.
"""

import math
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._options import count, levels, number
from f2d_kernels.integrations._tables import Tables

KINDS = ("sde", "sde_mean", "ode", "posterior")


def theta_schedule(owner: str, name: str, steps: int) -> Tensor:
    """Rates at times 0..T, before they are scaled by dt: "constant", "linear" or "cosine", as IR-SDE publishes them.

    constant 1; linear from 0.1 / (T + 1) to 20 / (T + 1); cosine 1 - c(t + 1) / c(0) with
    c(i) = cos²((i / (T + 2) + 0.008) / 1.008 · π / 2), i = 1..T+1.
    """
    if name == "constant":
        return torch.ones(steps + 1, dtype=torch.float64)
    if name == "linear":
        return torch.linspace(0.1, 20, steps + 1, dtype=torch.float64) / (steps + 1)
    if name == "cosine":
        place = torch.arange(steps + 3, dtype=torch.float64) / (steps + 2)
        level = torch.cos((place + 0.008) / 1.008 * (math.pi / 2)) ** 2
        return 1 - (level / level[0])[1:-1]
    raise ValueError(f"{owner}: schedule must be constant, linear, cosine or the rates, got {name!r}")


def mean_reversion(
    owner: str, max_sigma: float, steps: int, schedule: str | Tensor, eps: float
) -> tuple[float, Tensor, Tensor]:
    """Return (lambda, theta dt, Θ) of a mean-reverting process, float64 [steps + 1]; dt is such that e^{-Θ_T} = eps.

    Raises ValueError, which names `owner`, for arguments that do not fit.
    """
    steps = count(owner, "steps", steps)
    max_sigma, eps = number(owner, "max_sigma", max_sigma), number(owner, "eps", eps)
    if not (steps >= 1 and max_sigma > 0 and 0 < eps < 1):
        raise ValueError(f"{owner}: must have steps >= 1, max_sigma > 0, 0 < eps < 1, got {steps}, {max_sigma}, {eps}")
    rate = theta_schedule(owner, schedule, steps) if isinstance(schedule, str) else levels(owner, "schedule", schedule)
    if len(rate) != steps + 1 or not (rate[1:] > 0).all():
        raise ValueError(f"{owner}: schedule must hold {steps + 1} rates > 0 for {steps} steps, got {len(rate)}")
    total = torch.cat([torch.zeros(1, dtype=torch.float64), rate[1:].cumsum(0)])
    dt = -math.log(eps) / float(total[-1])
    return max_sigma / 255 if max_sigma >= 1 else max_sigma, rate * dt, total * dt


class MeanReverting(Tables):
    """A process with training states and the most likely step back, from its tables "state" and "optimum"."""

    def sample(self, x_0: Tensor, mu: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """Draw the training state x_t of clean x_0 and degraded mu, [B,C,H,W], at t (int, [] or [B]) in 0..T.

        noise: the sources of `f2d_kernels.gaussian_transition`: noise, seed, generator, stream, window.
        """
        return self._linear("state", [x_0, mu], t, noise)

    def optimum(self, x: Tensor, x_0: Tensor, mu: Tensor, t: int | Tensor) -> Tensor:
        """E[x_{t-1} | x_t = x, x_0], the target of the method's maximum likelihood loss."""
        return self._linear("optimum", [x, x_0, mu], t, {})


class IRSDE(MeanReverting):
    """``dx = theta (mu - x) dt + sigma dw`` with sigma² = 2 lambda² theta, whose states at times t = 0..T are

        x_t = mu + (x_0 - mu) e^{-Θ_t} + lambda sqrt(1 - e^{-2 Θ_t}) ε,   Θ_t = dt Σ_{1 <= i <= t} theta_i.

    max_sigma: lambda, in grey levels (of 255) if it is 1 or more, otherwise in the units of the images. steps: T.
    schedule: name of `theta_schedule`, or T + 1 rates (the first is never used). eps: e^{-Θ_T}, which sets dt. The
    defaults are the published class's; the published options give eps = 0.005.

    Raises ValueError for an invalid schedule. (Image Restoration with Mean-Reverting SDEs, ICML 2023, eq. 3-6,
    10-14.)
    """

    def __init__(self, max_sigma: float, steps: int = 100, schedule: str | Tensor = "cosine", eps: float = 0.01):
        spread, rate, total = mean_reversion("IRSDE", max_sigma, steps, schedule, eps)
        super().__init__(range(steps, 0, -1))
        std = spread * (-torch.expm1(-2 * total)).sqrt()
        self._add("state", range(steps + 1), [torch.exp(-total), -torch.expm1(-total), std])
        rate, now, last, std = rate[1:], total[1:], total[:-1], std[1:]
        one, zero, times = torch.ones_like(rate), torch.zeros_like(rate), range(1, steps + 1)
        pull = 2 * spread**2 * rate / std  # sigma² dt times the score of a noise of one
        self._add("sde", times, [one + rate, -rate, -pull, -spread * (2 * rate).sqrt()])
        self._add("sde_mean", times, [one + rate, -rate, -pull, zero])
        self._add("ode", times, [one + rate, -rate, -pull / 2, zero])
        # of x_{t-1} given x_t and x_0, both about mu: a product of two Gaussians (eq. 13, 14)
        share = -1 / torch.expm1(-2 * now)
        of_state = torch.exp(-rate) * -torch.expm1(-2 * last) * share
        of_clean = torch.exp(-last) * -torch.expm1(-2 * rate) * share
        left = spread * (torch.expm1(-2 * rate) * torch.expm1(-2 * last) * share).sqrt()
        self._add("optimum", times, [of_state, of_clean, one - of_state - of_clean, zero])
        grown = of_clean * torch.exp(now)  # x_0 - mu = (x_t - mu - std · noise) e^Θ
        self._add("posterior", times, [of_state + grown, one - of_state - grown, -grown * std, left])

    def step(
        self, x: Tensor, mu: Tensor, prediction: Tensor, t: int | Tensor, kind: str = "sde", **noise: Any
    ) -> Tensor:
        """x_{t-1} from the state x at t = T..1 (int, [] or [B]), the degraded mu and the predicted ε, all [B,C,H,W].

        With s = -prediction / std_t, the score:
            sde         x - (theta (mu - x) - sigma² s) dt - sigma sqrt(dt) ε       sde_mean   the same without ε
            ode         x - (theta (mu - x) - sigma² s / 2) dt
            posterior   a draw of x_{t-1} given x and the x_0 that the prediction implies ("posterior sampling")
        """
        if kind not in KINDS:
            raise ValueError(f"IRSDE: step must be one of {', '.join(KINDS)}, got {kind!r}")
        return self._linear(kind, [x, mu, prediction], t, noise)
