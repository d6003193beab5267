"""GOUB: the mean-reverting SDE tied to the degraded image at both ends of time.

    # before: GOUB; its own default of eps is 0.01, its options files give 0.005
    sde = GOUB(lambda_square=30, T=100, schedule="cosine", eps=0.005)
    sde.set_mu(mu)
    x = mu
    for t in reversed(range(1, sde.T + 1)):
        noise = model(x, mu, t)
        score = -noise / sde.f_sigma(t) if t != 100 else 0
        x = sde.reverse_mean_ode_step(x, score, t)

    # after
    sde = GOUB(max_sigma=30, steps=100, schedule="cosine", eps=0.005)
    x = mu
    for t in sde.times:
        x = sde.step(x, mu, model(x, mu, t), t, "mean_ode")

In the published code time ends at 100, whatever T is; here it ends at T. Neither clips anything.
"""

from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations.mean_reverting import MeanReverting, mean_reversion

KINDS = ("sde", "mean_ode")


class GOUB(MeanReverting):
    """IR-SDE's process with x_T = mu given (Doob's h-transform), whose states at times t = 0..T are

        x_t = m_t x_0 + (1 - m_t) mu + f_t ε,   m_t = e^{-Θ_t} v_tT / v_0T,   f_t² = lambda² v_0t v_tT / v_0T,
        v_st = 1 - e^{-2 (Θ_t - Θ_s)},          Θ_t = dt Σ_{1 <= i <= t} theta_i.

    There is no noise at either end, and the end t = T is mu. max_sigma: lambda, in grey levels (of 255) if it is 1 or
    more, otherwise in the units of the images (published as `lambda_square`, but used as lambda). steps, schedule and
    eps are those of `IRSDE`.

    Raises ValueError for an invalid schedule. (Image Restoration Through Generalized Ornstein-Uhlenbeck Bridge,
    ICML 2024, eq. 8-11, 15.)
    """

    def __init__(self, max_sigma: float, steps: int = 100, schedule: str | Tensor = "cosine", eps: float = 0.01):
        spread, rate, total = mean_reversion("GOUB", max_sigma, steps, schedule, eps)
        super().__init__(range(steps, 0, -1))
        begun, left = -torch.expm1(-2 * total), -torch.expm1(-2 * (total[-1] - total))  # v_0t and v_tT
        kept = torch.exp(-total) * left / begun[-1]
        std = spread * (begun * left / begun[-1]).sqrt()
        self._add("state", range(steps + 1), [kept, 1 - kept, std])

        # At T the state is mu: neither the bridge's pull towards it nor the score is defined; none, as published
        times, now = range(1, steps + 1), slice(1, steps)
        ends = torch.zeros(1, dtype=torch.float64)
        bridge = 2 * rate[now] * torch.exp(-2 * (total[-1] - total[now])) / left[now]
        pull = rate[1:] + torch.cat([bridge, ends])
        of_noise = torch.cat([-2 * spread**2 * rate[now] / std[now], ends])
        one, zero = torch.ones_like(pull), torch.zeros_like(pull)
        self._add("sde", times, [one + pull, -pull, of_noise, -spread * (2 * rate[1:]).sqrt()])
        self._add("mean_ode", times, [one + pull, -pull, of_noise, zero])

        # E[x_{t-1} | x_t, x_0]: the variance of x_t is carry² times that of x_{t-1}, and what the step adds
        carry = kept[1:] / kept[:-1]
        of_state = torch.cat([carry[:-1] * (std[:-2] / std[now]) ** 2, ends])
        of_clean = kept[:-1] - of_state * kept[1:]
        self._add("optimum", times, [of_state, of_clean, one - of_state - of_clean, zero])

    def step(
        self, x: Tensor, mu: Tensor, prediction: Tensor, t: int | Tensor, kind: str = "mean_ode", **noise: Any
    ) -> Tensor:
        """x_{t-1} from the state x at t = T..1 (int, [] or [B]), the degraded mu and the predicted ε, all [B,C,H,W].

        With s = -prediction / f_t, the score, and sigma² = 2 lambda² theta:
            sde        x - ((theta + 2 theta e^{-2 (Θ_T - Θ_t)} / v_tT) (mu - x) - sigma² s) dt - sigma sqrt(dt) ε
            mean_ode   the same without ε, the sampler that GOUB reports
        At t = T, both the term of the bridge and s are 0.
        """
        if kind not in KINDS:
            raise ValueError(f"GOUB: step must be one of {', '.join(KINDS)}, got {kind!r}")
        return self._linear(kind, [x, mu, prediction], t, noise)
