"""RDDM and DiffUIR: diffusion of the residual between the degraded and the clean image, with noise.

# before                                                        # after
for time, time_next in time_pairs:                              steps = ResidualDiffusion(m.alphas_cumsum,
    res, eps = ...                                                          m.betas_cumsum, times, eta=eta)
    alpha, beta = alphas_cumsum[time] - ..., ...                for t in steps.times:
    img = img - alpha * res - ... * eps + sigma * randn             res, eps = ...
                                                                    img = steps.step(img, res, eps, t, seed=7)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._tables import Tables, before, levels, visited


class ResidualDiffusion(Tables):
    """``x_t = x_0 + A_t · res + B_t · ε - D_t · degraded`` with res = degraded - x_0, at times t = 0..T-1.

    alpha_bar, beta_bar: A and B, [T] each, as published (`alphas_cumsum`, `betas_cumsum`). times: those the sampler
    visits, noisiest first; by default all. After the last comes the clean image: A = B = D = 0. eta: 0 for the
    deterministic sampler, 1 for the variance of the posterior. delta_bar: D, [T], DiffUIR's shared distribution term
    (eta = 0 only); None means 0, as in RDDM.

    ValueError for schedules or times that do not fit. (RDDM: Residual Denoising Diffusion Models, CVPR 2024, eq. 7, 13;
    DiffUIR: Selective Hourglass Mapping, CVPR 2024.)
    """

    def __init__(
        self,
        alpha_bar: Tensor | Sequence[float],
        beta_bar: Tensor | Sequence[float],
        times: Sequence[int] | None = None,
        eta: float = 0.0,
        delta_bar: Tensor | Sequence[float] | None = None,
    ):
        name = type(self).__name__
        a, b = levels(name, "alpha_bar", alpha_bar), levels(name, "beta_bar", beta_bar)
        d = torch.zeros_like(a) if delta_bar is None else levels(name, "delta_bar", delta_bar)
        if not len(a) == len(b) == len(d):
            raise ValueError(
                f"{name}: alpha_bar, beta_bar and delta_bar differ in length: {len(a)}, {len(b)}, {len(d)}"
            )
        if not (0 <= eta <= 1) or (eta > 0 and delta_bar is not None):
            raise ValueError(f"{name}: eta must lie in 0..1, and be 0 with delta_bar; got {eta}")
        now = visited(name, times, len(a))
        if not (b[now] > 0).all():
            raise ValueError(f"{name}: beta_bar must be > 0 at the times of the sampler")
        super().__init__(now)
        self._add("state", range(len(a)), [1 - a, a - d, b])
        (a1, a0), (b1, b0), (d1, d0) = ((v[now], before(now, v, 0.0)) for v in (a, b, d))
        std = (eta * (b1**2 - b0**2).clamp_min(0)).sqrt() * b0 / b1
        one, fall = torch.ones_like(a1), b1 - (b0**2 - std**2).clamp_min(0).sqrt()
        self._add("plain", now, [one, a0 - a1, -fall, std])
        self._add("shared", now, [one, a0 - a1, -fall, d1 - d0, std])
        # ε = (x - degraded · (1 - D) + (1 - A) · res) / B, put in
        of_x, ratio = one - fall / b1, fall / b1
        self._add("residual", now, [of_x, a0 - a1 - ratio * (1 - a1), ratio * (1 - d1) + d1 - d0, std])
        self._needs_degraded = delta_bar is not None

    def sample(self, x_0: Tensor, degraded: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """The training state x_t, [B,C,H,W], at t (int or [B]); noise as `f2d_kernels.gaussian_transition` takes it."""
        return self._linear("state", [x_0, degraded], t, noise)

    def step(
        self,
        x: Tensor,
        residual: Tensor,
        prediction: Tensor | None,
        t: int | Tensor,
        degraded: Tensor | None = None,
        **noise: Any,
    ) -> Tensor:
        """The state at the next of `times`, from x at t, the predicted residual and the predicted noise, [B,C,H,W]:

            x - (A_t - A_s) residual - (B_t - sqrt(B_s² - std²)) prediction + (D_t - D_s) degraded + std ε,
            std² = eta (B_t² - B_s²) B_s² / B_t²,  s the next time.

        prediction: None where the network gives the residual alone; the noise then follows from x_t, and `degraded` is
        needed, as it is with delta_bar.
        """
        if degraded is None and (prediction is None or self._needs_degraded):
            raise ValueError("ResidualDiffusion: this step needs the degraded image too")
        if prediction is None:
            return self._linear("residual", [x, residual, degraded], t, noise)
        if self._needs_degraded:
            return self._linear("shared", [x, residual, prediction, degraded], t, noise)
        return self._linear("plain", [x, residual, prediction], t, noise)
