"""RDDM and DiffUIR: diffusion of the residual between the degraded and the clean image, with noise.

    # before: RDDM
    out = diffusion.ddim_sample([x_input], x_input.shape)[-1]

    # after
    n = diffusion.sampling_timesteps
    steps = ResidualDiffusion(diffusion.alphas_cumsum, diffusion.betas_cumsum, n, clip=1.0)
    x = x_input + math.sqrt(diffusion.sum_scale) * torch.randn_like(x_input)
    for t in steps.times:
        residual, noise = diffusion.model(torch.cat([x, x_input], 1), torch.full((len(x),), t))
        x = steps.step(x, residual, noise, t)
    out = (x + 1) / 2

    # before: DiffUIR
    out = diffusion.ddim_sample([x_input], x_input.shape)[-1]

    # after: its sampler leaves the noise in the state until the last step
    a, b, d = diffusion.alphas_cumsum, diffusion.betas_cumsum, diffusion.delta_cumsum
    steps = ResidualDiffusion(a, b, diffusion.sampling_timesteps, delta_bar=d, clip=1.0, denoise=False)
    x = (1 - d[-1]) * x_input + math.sqrt(diffusion.sum_scale) * torch.randn_like(x_input)
    for t in steps.times:
        at = torch.full((len(x),), t)
        time = [a[at] * diffusion.num_timesteps, b[at] * diffusion.num_timesteps]
        residual, = diffusion.model(torch.cat([x, x_input], 1), time)
        x = steps.step(x, residual, None, t, x_input)
    out = (x + 1) / 2

Both clip the residual and the clean image of the last step to [-1, 1], and have eta = 0 for restoration.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._options import count, flag, levels, limit, number, visited
from f2d_kernels.integrations._tables import Tables, before, clipped

FAR = torch.finfo(torch.float32).max  # a bound that bounds nothing


class ResidualDiffusion(Tables):
    """``x_t = x_0 + A_t · res + B_t · ε - D_t · degraded`` with res = degraded - x_0, at times t = 0..T-1.

    alpha_bar, beta_bar: A and B, [T] each, as published (`alphas_cumsum`, `betas_cumsum`). times: the times that the
    sampler visits, noisiest first, or their number, spaced as published; by default all. The clean image comes after
    the last time: A = B = D = 0. eta: 0 for the deterministic sampler, 1 for the variance of the posterior. delta_bar:
    D, [T], DiffUIR's shared distribution term (only with eta = 0); None means 0, as in RDDM. clip: bound of |res|, and
    of the clean image of the last step, or None. denoise: False (only with eta = 0) leaves B_t ε in the state until the
    last step.

    Raises ValueError for an invalid schedule or invalid times. (RDDM: Residual Denoising Diffusion Models, CVPR 2024,
    eq. 7, 13; DiffUIR: Selective Hourglass Mapping, CVPR 2024.)
    """

    def __init__(
        self,
        alpha_bar: Tensor | Sequence[float],
        beta_bar: Tensor | Sequence[float],
        times: Sequence[int] | int | None = None,
        eta: float = 0.0,
        delta_bar: Tensor | Sequence[float] | None = None,
        clip: float | None = None,
        denoise: bool = True,
    ):
        name = type(self).__name__
        a, b = levels(name, "alpha_bar", alpha_bar), levels(name, "beta_bar", beta_bar)
        d = torch.zeros_like(a) if delta_bar is None else levels(name, "delta_bar", delta_bar)
        if not len(a) == len(b) == len(d):
            raise ValueError(
                f"{name}: alpha_bar, beta_bar and delta_bar differ in length: {len(a)}, {len(b)}, {len(d)}"
            )
        eta, denoise = number(name, "eta", eta), flag(name, "denoise", denoise)
        if not (0 <= eta <= 1) or (eta > 0 and (delta_bar is not None or not denoise)):
            raise ValueError(f"{name}: eta must lie in 0..1, and be 0 with delta_bar and denoise=False, got {eta}")
        clip = limit(name, "clip", clip)
        if times is not None and (getattr(times, "ndim", None) == 0 or not isinstance(times, Iterable)):
            times = count(name, "times", times)
            if not 1 <= times <= len(a):
                raise ValueError(f"{name}: steps must be 1 to {len(a)}, got {times}")
            times = torch.linspace(-1, len(a) - 1, times + 1, dtype=torch.float32).int().flip(0)[:-1].tolist()
        now = visited(name, times, len(a))
        if not (b[now] > 0).all():
            raise ValueError(f"{name}: beta_bar must be > 0 at the times of the sampler")
        super().__init__(now)
        self.clip, self._needs_degraded = clip, delta_bar is not None
        self._add("state", range(len(a)), [1 - a, a - d, b])
        (a1, a0), (b1, b0), (d1, d0) = ((v[now], before(now, v, 0.0)) for v in (a, b, d))
        std = (eta * (b1**2 - b0**2).clamp_min(0)).sqrt() * b0 / b1
        one, fall = torch.ones_like(a1), b1 - (b0**2 - std**2).clamp_min(0).sqrt()
        if not denoise:
            fall[:-1] = 0
        self._add("plain", now, [one, a0 - a1, -fall, std])
        self._add("shared", now, [one, a0 - a1, -fall, d1 - d0, std])
        # ε = (x - degraded · (1 - D) + (1 - A) · res) / B, put in
        of_x, ratio = one - fall / b1, fall / b1
        self._add("residual", now, [of_x, a0 - a1 - ratio * (1 - a1), ratio * (1 - d1) + d1 - d0, std])
        if clip is not None:
            bound = torch.full_like(a1, FAR)
            bound[-1] = clip
            self._add("bound", now, [bound])

    def sample(self, x_0: Tensor, degraded: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """``x_0 + A_t res + B_t ε - D_t degraded``: the training state [B,C,H,W] at t (int, [] or [B]).

        noise: the sources of `f2d_kernels.gaussian_transition`.
        """
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
        """Compute the state at s, the time after t (int, [] or [B]), from the state x, the predicted residual and the
        predicted noise, all [B,C,H,W]:

            x - (A_t - A_s) residual - (B_t - sqrt(B_s² - std²)) prediction + (D_t - D_s) degraded + std ε,
            std² = eta (B_t² - B_s²) B_s² / B_t²

        prediction: None if the network only predicts the residual. The noise is then computed from x_t, which needs
        `degraded`, as does delta_bar. Raises ValueError if it is missing.
        """
        if degraded is None and (prediction is None or self._needs_degraded):
            raise ValueError("ResidualDiffusion: this step needs the degraded image too")
        residual = clipped(residual, self.clip)
        name, terms = "plain", [x, residual, prediction]
        if prediction is None:
            name, terms = "residual", [x, residual, degraded]
        elif self._needs_degraded:
            name, terms = "shared", [x, residual, prediction, degraded]
        found = self._linear(name, terms, t, noise)
        if self.clip is None or (isinstance(t, int) and t != self.times[-1]):
            return found
        bound = self._row("bound", self._time("bound", t, x), [found])[..., 0].to(found.dtype).reshape(-1, 1, 1, 1)
        return found.clamp(-bound, bound)
