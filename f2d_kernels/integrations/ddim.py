"""DDIM, and DDPM as its case eta = 1.

    # before: DDIMScheduler of diffusers, whatever its configuration
    scheduler.set_timesteps(50)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x, eta=1.0).prev_sample

    # after
    scheduler.set_timesteps(50)
    process = DDIM.of(scheduler, eta=1.0)
    for t in scheduler.timesteps:
        x = process.step(x, model(x, t), t, seed=7)

The defaults of `DDIMScheduler` are eta = 0, x_0 clipped to [-1, 1], "leading" spacing, and 1 as the last alpha_bar;
those of `DDIM` are the paper's: no clipping, and a step goes to the next time that the sampler visits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from f2d_kernels.integrations._options import count, flag, levels, limit, number, visited
from f2d_kernels.integrations._tables import Tables, before, clipped

PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}  # our names, and those of diffusers

# by name, since diffusers need not be installed; its LCM, TCD and PNDM schedulers have the same attributes
SCHEDULERS = ("DDIMScheduler", "DDIMParallelScheduler")


class DDIM(Tables):
    """``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) ε`` at times t = 0..T-1, and steps back along `times`.

    alpha_bar: a, [T], in [0, 1), falling (`alphas_cumprod`); 0 (zero terminal SNR) only for "x0" and "v". times: the
    times that the sampler visits, noisiest first (ints or a tensor); by default all. eta: 0 is DDIM, 1 DDPM's
    posterior. prediction: what the network predicts: "epsilon", "x0", or "v" = sqrt(a) ε - sqrt(1 - a) x_0. clip: bound
    of |x_0|, or None. final: a after the last step, 1 for the clean image. stride: with a number, a step goes from t to
    t - stride, and to `final` below 0, as in diffusers; with None, to the next of `times`. rederive: compute ε_pred
    from the clipped x_0 instead of the prediction (`use_clipped_model_output`, and diffusers' DDPMScheduler).

    Raises ValueError for an invalid schedule or invalid times. (Denoising Diffusion Implicit Models, ICLR 2021, eq. 12,
    16.)
    """

    def __init__(
        self,
        alpha_bar: Tensor | Sequence[float],
        times: Sequence[int] | Tensor | None = None,
        eta: float = 0.0,
        prediction: str = "epsilon",
        clip: float | None = None,
        final: float = 1.0,
        stride: int | None = None,
        rederive: bool = False,
    ):
        a = levels("DDIM", "alpha_bar", alpha_bar)
        eta, final = number("DDIM", "eta", eta), number("DDIM", "final", final)
        stride = None if stride is None else count("DDIM", "stride", stride)
        if not (a.min() >= 0 and a.max() < 1 and (a.diff() <= 0).all() and a[0] <= final <= 1):
            raise ValueError("DDIM: alpha_bar must fall and lie in [0, 1), final between alpha_bar[0] and 1")
        if prediction not in PREDICTIONS:
            raise ValueError(f"DDIM: prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
        if not 0 <= eta <= 1 or (stride is not None and stride < 1):
            raise ValueError(f"DDIM: eta must lie in 0..1 and stride be >= 1, got {eta}, {stride}")
        now = visited("DDIM", times, len(a))
        if prediction == "epsilon" and a[now[0]] == 0:
            raise ValueError(f"DDIM: alpha_bar is 0 at t = {now[0]}, where only predictions 'x0' and 'v' give x_0")
        super().__init__(now)
        self.clip, self.rederive = limit("DDIM", "clip", clip), flag("DDIM", "rederive", rederive)
        self._add("state", range(len(a)), [a.sqrt(), (1 - a).sqrt()])
        a1, a0 = a[now], before(now, a, final)
        if stride is not None:
            a0 = torch.stack([a[t - stride] if t >= stride else a.new_tensor(final) for t in now])
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
        self._add("rederived", now, [ahead - aside * signal / spread, aside / spread, std])
        self._add("step", now, [ahead * clean_x + aside * noise_x, ahead * clean_p + aside * noise_p, std])

    @classmethod
    def of(cls, scheduler: Any, eta: float = 0.0, use_clipped_model_output: bool = False) -> "DDIM":
        """Copy a `diffusers.DDIMScheduler` (or DDIMParallelScheduler) after `set_timesteps`: its times, spacing,
        prediction type, clipping, rescaled betas and last alpha_bar. eta and use_clipped_model_output are arguments of
        its `step`.

        Raises TypeError for other schedulers, and ValueError before `set_timesteps` and for dynamic thresholding.
        """
        if not any(kind.__name__ in SCHEDULERS for kind in type(scheduler).__mro__):
            raise TypeError(f"DDIM.of: scheduler must be a DDIMScheduler, got {type(scheduler).__name__}")
        config = scheduler.config
        if scheduler.num_inference_steps is None:
            raise ValueError("DDIM.of: call scheduler.set_timesteps before")
        if config.thresholding:
            raise ValueError("DDIM.of: thresholding=True is not supported, unlike clip_sample")
        names = {theirs: ours for ours, theirs in PREDICTIONS.items()}
        return cls(
            scheduler.alphas_cumprod,
            scheduler.timesteps,
            eta,
            names.get(config.prediction_type, config.prediction_type),
            config.clip_sample_range if config.clip_sample else None,
            float(scheduler.final_alpha_cumprod),
            config.num_train_timesteps // scheduler.num_inference_steps,
            use_clipped_model_output,
        )

    def sample(self, x_0: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """``sqrt(a_t) x_0 + sqrt(1 - a_t) ε``: the training state [B,C,H,W] at t (int, [] or [B]) in 0..T-1.

        noise: the sources of `f2d_kernels.gaussian_transition`.
        """
        return self._linear("state", [x_0], t, noise)

    def clean(self, x: Tensor, prediction: Tensor, t: int | Tensor) -> Tensor:
        """Compute the x_0 that a prediction at the state x [B,C,H,W] implies, clamped to `clip`."""
        return clipped(self._linear("clean", [x, prediction], t, {}), self.clip)

    def step(self, x: Tensor, prediction: Tensor, t: int | Tensor, **noise: Any) -> Tensor:
        """Compute the state at s, the time after t (int, [] or [B]), from x and the prediction, both [B,C,H,W]:

            sqrt(a_s) x_0 + sqrt(1 - a_s - std²) ε_pred + std ε,   std² = eta² (1 - a_s) / (1 - a_t) (1 - a_t / a_s)

        It makes one pass over memory, or three with `clip`.
        """
        if self.clip is None:
            return self._linear("step", [x, prediction], t, noise)
        x_0 = self.clean(x, prediction, t)
        if self.rederive:
            return self._linear("rederived", [x_0, x], t, noise)
        return self._linear("clipped", [x_0, x, prediction], t, noise)
