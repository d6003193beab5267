"""ResShift: the residual is shifted in over a few steps, with noise that grows with it.

    # before: in the images' own range; in the latent space of an autoencoder the repository samples unclipped
    x = diffusion.prior_sample(y)
    for t in reversed(range(diffusion.num_timesteps)):
        batch = torch.full((len(x),), t)
        x = diffusion.p_sample(model, x, y, batch, clip_denoised=True)["sample"]

    # after; clip=None in a latent space
    process = ResShift(diffusion.etas, diffusion.kappa, clip=1.0)
    x = process.prior(y, seed=7)
    for t in process.times:
        batch = torch.full((len(x),), t)
        x_0 = model(diffusion._scale_input(x, batch), batch)
        x = process.step(x, x_0, t, seed=7)

If the diffusion was respaced, `diffusion.etas` are those of the remaining times, and model is the one that the wrapper
contains. `p_sample` clips x_0 to [-1, 1] by default. The published models predict x_0 (predict_type "xstart").
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._options import count, levels, limit, number
from f2d_kernels.integrations._tables import Tables, before, clipped


class ResShift(Tables):
    """``x_t = x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) ε`` at times t = 0..T-1, y the degraded image.

    etas: [T], rising (`exponential` computes the published ones). kappa: strength of the noise, > 0. clip: bound of
    |x_0| in `step`, or None.

    Raises ValueError for an invalid schedule. (ResShift, NeurIPS 2023, eq. 2, 6, 7; the paper counts from 1.)
    """

    def __init__(self, etas: Tensor | Sequence[float], kappa: float = 2.0, clip: float | None = None):
        eta = levels("ResShift", "etas", etas)
        if not (eta[0] > 0 and eta[-1] <= 1 and (eta.diff() > 0).all()):
            raise ValueError("ResShift: etas must rise, from above 0 to at most 1")
        kappa, clip = number("ResShift", "kappa", kappa), limit("ResShift", "clip", clip)
        if not kappa > 0:
            raise ValueError(f"ResShift: kappa must be > 0, got {kappa}")
        times = range(len(eta) - 1, -1, -1)
        super().__init__(times)
        self.clip = clip
        last = before(times, eta, 0.0).flip(0)
        share = last / eta
        self._add("state", range(len(eta)), [1 - eta, eta, kappa * eta.sqrt()])
        self._add("step", range(len(eta)), [share, 1 - share, kappa * (share * (eta - last)).sqrt()])
        self._add("prior", [len(eta)], [torch.ones(1), kappa * eta[-1:].sqrt()])

    @classmethod
    def exponential(
        cls,
        steps: int = 15,
        kappa: float = 2.0,
        power: float = 0.3,
        min_noise_level: float = 0.04,
        etas_end: float = 0.99,
        clip: float | None = None,
    ) -> "ResShift":
        """``sqrt(eta_t) = low (etas_end / low)^{((t - 1) / (T - 1))^power}``, t = 1..T, with
        low = min_noise_level / max(kappa, 1).

        The arguments are those of the repository's configurations, whose `etas_end` is the last *root* of eta. The
        defaults are those of its 15-step models; its journal version uses steps=4, min_noise_level=0.2. (The paper,
        eq. 8, 9, has sqrt(eta_T) = sqrt(0.999).)
        """
        steps = count("ResShift", "steps", steps)
        kappa, power = number("ResShift", "kappa", kappa), number("ResShift", "power", power)
        first = number("ResShift", "min_noise_level", min_noise_level)
        etas_end = number("ResShift", "etas_end", etas_end)
        if steps < 2:
            raise ValueError(f"ResShift: at least 2 steps, got {steps}")
        low = first / max(kappa, 1.0)
        if not 0 < low < etas_end:
            raise ValueError(f"ResShift: etas_end must be above {low}, the first root of eta, got {etas_end}")
        place = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu") ** power
        return cls((low * (etas_end / low) ** place) ** 2, kappa, clip)

    def prior(self, y: Tensor, **noise: Any) -> Tensor:
        """``y + kappa sqrt(eta_T) ε``: the state at which sampling starts, [B,C,H,W].

        noise: the sources of `f2d_kernels.gaussian_transition`, keyed by time T, which no step has.
        """
        return self._linear("prior", [y], len(self.times), noise)

    def sample(self, x_0: Tensor, y: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """``x_0 + eta_t (y - x_0) + kappa sqrt(eta_t) ε``: the training state [B,C,H,W] at t (int, [] or [B])."""
        return self._linear("state", [x_0, y], t, noise)

    def step(self, x: Tensor, x_0: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """``r x + (1 - r) x_0 + kappa sqrt(r (eta_t - eta_{t-1})) ε``, r = eta_{t-1} / eta_t: draw x_{t-1}.

        x: the state at t (int, [] or [B]); x_0: the predicted clean image, which is the result at t = 0; [B,C,H,W].
        """
        return self._linear("step", [x, clipped(x_0, self.clip)], t, noise)
