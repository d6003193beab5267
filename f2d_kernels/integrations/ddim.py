"""DDIM, and DDPM as its case eta = 1.

# before                                                        # after
scheduler.set_timesteps(50)                                     scheduler.set_timesteps(50)
for t in scheduler.timesteps:                                   process = DDIM(scheduler.alphas_cumprod,
    eps = model(x, t)                                                          scheduler.timesteps)
    x = scheduler.step(eps, t, x, eta=0.0).prev_sample          for t in process.times:
                                                                    x = process.step(x, model(x, t), t)
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._tables import Tables, before, levels, visited
from f2d_kernels.ops.gaussian_transition import gaussian_transition

PREDICTIONS = ("epsilon", "x0", "v")


class DDIM(Tables):
    """``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) ε`` at times t = 0..T-1, and steps back along `times`.

    alpha_bar: a, [T], in (0, 1), falling (`alphas_cumprod`). times: those the sampler visits, noisiest first (ints or
    a tensor); by default all. eta: 0 is DDIM, 1 DDPM's posterior. prediction: what the network gives: "epsilon",
    "x0", or "v" = sqrt(a) ε - sqrt(1 - a) x_0. clip: bound of |x_0|, None for none (diffusers clips at 1 by default).
    final: a after the last step, 1 for the clean image (diffusers without `set_alpha_to_one`: alpha_bar[0]).

    ValueError for schedules or times that do not fit. (Denoising Diffusion Implicit Models, ICLR 2021, eq. 12, 16.)
    """

    def __init__(
        self,
        alpha_bar: Tensor | Sequence[float],
        times: Sequence[int] | Tensor | None = None,
        eta: float = 0.0,
        prediction: str = "epsilon",
        clip: float | None = None,
        final: float = 1.0,
    ):
        a = levels("DDIM", "alpha_bar", alpha_bar)
        if not (a.min() > 0 and a.max() < 1 and (a.diff() <= 0).all() and a[0] <= final <= 1):
            raise ValueError("DDIM: alpha_bar must fall and lie in (0, 1), final between alpha_bar[0] and 1")
        if prediction not in PREDICTIONS:
            raise ValueError(f"DDIM: no prediction {prediction!r}; there are {', '.join(PREDICTIONS)}")
        if not 0 <= eta <= 1 or (clip is not None and not clip > 0):
            raise ValueError(f"DDIM: eta must lie in 0..1 and clip be > 0, got {eta}, {clip}")
        now = visited("DDIM", times.tolist() if isinstance(times, Tensor) else times, len(a))
        super().__init__(now)
        self.clip = clip
        self._add("state", range(len(a)), [a.sqrt(), (1 - a).sqrt()])
        a1, a0 = a[now], before(now, a, final)
        std = eta * ((1 - a0) / (1 - a1) * (1 - a1 / a0)).sqrt()
        signal, spread, one, zero = a1.sqrt(), (1 - a1).sqrt(), torch.ones_like(a1), torch.zeros_like(a1)
        # x_0 and ε as combinations of the state and the prediction
        clean_x, clean_p, noise_x, noise_p = {
            "epsilon": (1 / signal, -spread / signal, zero, one),
            "x0": (zero, one, 1 / spread, -signal / spread),
            "v": (signal, -spread, spread, signal),
        }[prediction]
        ahead, aside = a0.sqrt(), (1 - a0 - std**2).clamp_min(0).sqrt()
        self._add("clean", now, [clean_x, clean_p, zero])
        self._add("clipped", now, [ahead, aside * noise_x, aside * noise_p, std])
        self._add("step", now, [ahead * clean_x + aside * noise_x, ahead * clean_p + aside * noise_p, std])

    def sample(self, x_0: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """The training state x_t, [B,C,H,W], at t (int or [B]) in 0..T-1; noise as `f2d_kernels.gaussian_transition`
        takes it."""
        return self._linear("state", [x_0], t, noise)

    def clean(self, x: Tensor, prediction: Tensor, t: int | Tensor) -> Tensor:
        """The x_0 that a prediction at the state x means, clipped if `clip` says so."""
        found = gaussian_transition([x, prediction], self._row("clean", t, (x, prediction))[..., :-1], 0.0)
        return found if self.clip is None else found.clamp(-self.clip, self.clip)

    def step(self, x: Tensor, prediction: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """The state at the next of `times`, from x and the network's prediction at t, both [B,C,H,W]; s the next time:

            sqrt(a_s) x_0 + sqrt(1 - a_s - std²) ε_pred + std ε,   std² = eta² (1 - a_s) / (1 - a_t) (1 - a_t / a_s)

        One pass over memory, three with `clip` (ε_pred is the unclipped one, as in diffusers).
        """
        if self.clip is None:
            return self._linear("step", [x, prediction], t, noise)
        return self._linear("clipped", [self.clean(x, prediction, t), x, prediction], t, noise)
