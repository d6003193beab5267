"""The log-normal transport as a scheduler of diffusers."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from f2d.integrations.arguments import number, rates, whole
from f2d.nets import F2DNet
from f2d.transport import SAMPLERS, TARGETS, LogNormal, LogNormalSchedule
from f2d.transport.samplers import sampling_times, warn_if_short

Generators = torch.Generator | Sequence[torch.Generator] | None
Seed = int | Tensor | None


@dataclass
class LogNormalSchedulerOutput(BaseOutput):
    """prev_sample [B, C, H, W]: the state at the next time (diffusers' name, although time runs forward here).
    pred_original_sample, of the same shape: the clean image that the model's output implies, in [-1, 1]."""

    prev_sample: Tensor
    pred_original_sample: Tensor


class LogNormalScheduler(SchedulerMixin, ConfigMixin):
    """``x_t = mu + (x_s - mu) · exp(M + S ε)`` from x_0, the degraded image, at time 0 to mu, the clean one, at time T.

    Time runs forward: `timesteps` ascend from 0, and the loop starts from the degraded image (for an F²D-Net with an
    enhancer, from the enhanced image) instead of noise. Therefore `init_noise_sigma` is 1, and `scale_model_input`
    returns its argument:

        scheduler.set_timesteps(n)
        x = degraded                                            # [B, C, H, W] in [-1, 1]
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, degraded, t), t, x, seed=0).prev_sample

    num_train_timesteps: T. theta, sigma2: rates of the process, named as in `f2d.transport.LogNormalSchedule.named`, or
    T numbers each (lists or tensors) with the length `dt` of a step. sampler: MC, NMC, EM or mean of
    `f2d.transport.transport`.
    prediction_type: the model's prediction, "SFLOW" (mu - x_t), "FLOW" (mu - x_0) or "FINAL_X" (mu). The arithmetic is
    that of `f2d.transport`, always in float32. Raises ValueError for invalid arguments.

    Factorized Stochastic Transport for Composite Degradation Image Restoration, "The process".
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        *,  # register_to_config would not save arguments given by position
        num_train_timesteps: int = 100,
        theta: str | Sequence[float] | Tensor = "cosine",
        sigma2: str | Sequence[float] | Tensor = "linear",
        dt: float | None = None,
        sampler: str = "MC",
        prediction_type: str = "SFLOW",
    ):
        steps = whole(num_train_timesteps, "num_train_timesteps")
        if type(num_train_timesteps) is not int:
            self.register_to_config(num_train_timesteps=steps)
        num_train_timesteps = steps
        if isinstance(theta, Tensor) and isinstance(sigma2, Tensor):
            theta, sigma2 = theta.tolist(), sigma2.tolist()
            self.register_to_config(theta=theta, sigma2=sigma2)  # saved as JSON
        for name, value, known in (("sampler", sampler, SAMPLERS), ("prediction_type", prediction_type, TARGETS)):
            if value not in known:
                raise ValueError(f"LogNormalScheduler: {name} must be one of {', '.join(known)}, got {value!r}")
        if isinstance(theta, str) and isinstance(sigma2, str):
            if dt is not None:
                raise ValueError("LogNormalScheduler: dt must be omitted, because named rates determine it")
            schedule = LogNormalSchedule.named(theta, sigma2, num_train_timesteps)
        elif isinstance(theta, str) or isinstance(sigma2, str) or dt is None:
            raise ValueError("LogNormalScheduler: theta and sigma2 must be names, or numbers together with dt")
        else:
            schedule = LogNormalSchedule(rates(theta, "theta"), rates(sigma2, "sigma2"), number(dt, "dt"))
            if schedule.num_steps != num_train_timesteps:
                raise ValueError(
                    f"LogNormalScheduler: {schedule.num_steps} rates for num_train_timesteps={num_train_timesteps}"
                )
        self.transport = LogNormal(schedule, prediction_type)
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        self._set_times([*range(num_train_timesteps + 1)], None)

    @classmethod
    def of(cls, net: F2DNet, sampler: str = "MC") -> "LogNormalScheduler":
        """Return the scheduler of an F²D-Net, with its rates (learned ones included) and prediction type."""
        config, schedule = net.config, net.schedule
        rates: dict[str, Any] = {"theta": config.theta, "sigma2": config.sigma2}
        if net.learned_schedule is not None:
            rates = {"theta": schedule.theta[1:].tolist(), "sigma2": schedule.sigma2[1:].tolist(), "dt": schedule.dt}
        return cls(num_train_timesteps=schedule.num_steps, sampler=sampler, prediction_type=config.target, **rates)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    @property
    def step_index(self) -> int | None:
        """The index of the next step, None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The index of the first step, if `set_begin_index` has set one."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the loop after `set_timesteps` at ``timesteps[begin_index]``."""
        index, last = whole(begin_index, "begin_index"), len(self._times) - 2
        if not 0 <= index <= last:
            raise ValueError(f"LogNormalScheduler: begin_index must lie in 0 to {last}, got {index}")
        self._begin_index: int | None = index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Set the times ``floor(i T / n)``, i = 0..n-1, or `timesteps`, ascending in 0..T-1; the last step ends at T.

        Raises ValueError unless exactly one is given, and for a number of steps that the sampler does not support.
        Warns (RuntimeWarning) about EM in fewer than T steps, which stops short of the target.
        """
        schedule, sampler = self.transport.schedule, self.config.sampler
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("LogNormalScheduler: give exactly one of num_inference_steps and timesteps")
        if num_inference_steps is not None:
            times = sampling_times(schedule, whole(num_inference_steps, "num_inference_steps"), sampler)
        elif timesteps is not None:
            listed = timesteps.tolist() if hasattr(timesteps, "tolist") else timesteps
            if not isinstance(listed, Sequence) or isinstance(listed, str):
                raise TypeError(f"LogNormalScheduler: timesteps must be a sequence of integers, got {timesteps!r}")
            times = [*(whole(t, "timesteps") for t in listed), schedule.num_steps]
            if len(times) < 2 or times[0] < 0 or any(s >= t for s, t in itertools.pairwise(times)):
                raise ValueError(f"LogNormalScheduler: timesteps must ascend in 0 <= t < {times[-1]}, got {times[:-1]}")
            sampling_times(schedule, len(times) - 1, sampler)
        warn_if_short(schedule, len(times) - 1, sampler)
        self.num_inference_steps = len(times) - 1
        self._set_times(times, device)

    def _set_times(self, times: list[int], device: str | torch.device | None) -> None:
        self._times = times
        self.timesteps = torch.tensor(times[:-1], dtype=torch.int64).to(device)
        self._step_index: int | None = None
        self._begin_index = None
        self._start: Tensor | None = None

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """Return `sample` itself, because the network takes the unscaled state."""
        return sample

    def add_noise(
        self,
        original_samples: Tensor,
        noise: Tensor,
        timesteps: int | Tensor,
        *,
        generator: Generators = None,
        seed: Seed = None,
        epsilon: Tensor | None = None,
    ) -> Tensor:
        """``x_t = mu + (x_0 - mu) · exp(M_t + S_t ε)``: a training state, mu = original_samples, x_0 = noise.

        The degraded image takes the place of diffusion's noise, from which sampling starts. Both are [B, C, H, W].
        timesteps: whole numbers from 0 to T; an int or a tensor of one for all images, or [B]. ε is `epsilon`, of the
        images' shape, or drawn from a seed (one, or [B]), a generator (one, or a list of B), or PyTorch's default
        generator.

        Raises TypeError or ValueError for other timesteps. Values on a GPU are not checked here; they fail there.
        """
        source = noise_source(noise, generator, seed, epsilon)
        return self.transport.schedule.sample(noise, original_samples, self._times_of(timesteps, noise), **source)

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
        *,
        seed: Seed = None,
        noise: Tensor | None = None,
        original_sample: Tensor | None = None,
    ) -> LogNormalSchedulerOutput | tuple[Tensor, Tensor]:
        """Compute the state at the next of `timesteps` from the state `sample` at this one and the model's output.

        model_output, sample: [B, C, H, W] of any floating dtype; the result has that of sample. ε is `noise`
        [B, C, H, W], or comes from a seed (one, or int64 [B]), or from a generator (one, or a list of B). With a seed,
        the stream is the index of the step, as in `f2d.restore_tensor`, so give every step the same seed.
        original_sample: x_0, which NMC and FLOW need if the loop does not start at time 0.

        timestep: one of `timesteps`, for all images; a tensor [B] must hold it B times. A tensor on a GPU is read only
        at the first step, and never after `set_begin_index`, because reading makes the host wait. Raises ValueError for
        a time that is not among `timesteps`, for different times, or for a step after the last, and TypeError for a
        time that is not a whole number.
        """
        i = self._index(timestep)
        s, t = self._times[i], self._times[i + 1]
        if original_sample is not None:
            self._start = original_sample
        elif s == 0:
            self._start = sample
        elif self._start is None and (self.config.sampler == "NMC" or self.config.prediction_type == "FLOW"):
            raise ValueError(
                f"LogNormalScheduler: the loop starts at {s}, not at 0, so x_0 must be given as original_sample"
            )
        state, start = sample.float(), (sample if self._start is None else self._start).float()
        mu = self.transport.clean(model_output.float(), state, start, s)
        source = noise_source(state, generator, seed, noise)
        if noise is None:
            source["stream"] = i
        x = self.transport.step(state, model_output, start, s, t, self.config.sampler, source)
        self._step_index = i + 1
        if i + 2 == len(self._times):
            x = x.clamp(-1, 1)
            self._start = None
        x, mu = x.to(sample.dtype), mu.clamp(-1, 1).to(sample.dtype)
        return LogNormalSchedulerOutput(x, mu) if return_dict else (x, mu)

    def _index(self, timestep: int | Tensor) -> int:
        i = self._begin_index if self._step_index is None else self._step_index
        if isinstance(timestep, Tensor):
            if i is not None and timestep.device.type != "cpu":
                if i + 1 >= len(self._times):
                    raise ValueError(
                        "LogNormalScheduler: no step follows the last one (call set_timesteps before another loop)"
                    )
                return i
            held = timestep.reshape(-1).tolist()
            if len(set(held)) != 1:
                raise ValueError(f"LogNormalScheduler: timestep must be the same for all images, got {held}")
            timestep = held[0]
        time = whole(timestep, "timestep")
        if time not in self._times[:-1]:
            raise ValueError(
                f"LogNormalScheduler: {time} is not among the timesteps {self._times[:-1]} (see set_timesteps)"
            )
        return self._times.index(time)

    def _times_of(self, timesteps: int | Tensor, images: Tensor) -> int | Tensor:
        """Check `timesteps` of `add_noise`; return an int, or int64 [B] on the images' device."""
        last, batch = self.config.num_train_timesteps, images.shape[0]
        if not isinstance(timesteps, Tensor):
            held = [whole(timesteps, "timesteps")]
        elif timesteps.is_floating_point() or timesteps.is_complex() or timesteps.dtype == torch.bool:
            raise TypeError(f"LogNormalScheduler: timesteps must be whole numbers, got {timesteps.dtype}")
        elif timesteps.dim() > 1 or timesteps.numel() not in (1, batch):
            raise ValueError(
                f"LogNormalScheduler: timesteps must be one, or one per image, [{batch}], got {tuple(timesteps.shape)}"
            )
        else:
            held = timesteps.reshape(-1).tolist() if timesteps.device.type == "cpu" else []
        wrong = [t for t in held if not 0 <= t <= last]
        if wrong:
            raise ValueError(f"LogNormalScheduler: timesteps must lie in 0 to {last}, got {wrong[0]}")
        if not isinstance(timesteps, Tensor):
            return held[0]
        timesteps = timesteps.long().reshape(-1).to(images.device, non_blocking=True).expand(batch)
        # a negative index would count from the end; on a GPU, replace it by one past the end, which PyTorch refuses
        return timesteps if held else torch.where(timesteps < 0, last + 1, timesteps)


def noise_source(x: Tensor, generator: Generators, seed: Seed = None, noise: Tensor | None = None) -> dict:
    """Return the source of noise of images x [B, C, H, W], in keywords of the ops; raise ValueError for two sources.

    A list of generators gives one seed per image, so that its noise does not depend on the rest of the batch. One
    generator gives one seed; for a single image, this is the same as a list of that generator.
    """
    if sum(given is not None for given in (generator, seed, noise)) > 1:
        raise ValueError("there must be one source of noise: a generator, a seed, or the noise itself")
    if noise is not None:
        return {"noise": noise}
    if seed is not None:
        return {"seed": seed}
    if generator is None:
        return {}
    listed = [generator] if isinstance(generator, torch.Generator) else generator
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, torch.Generator) for one in listed):
        raise TypeError(f"generator must be a torch.Generator, or a list of one for each image, got {generator!r}")
    if isinstance(generator, torch.Generator):
        return {"seed": _drawn(generator).to(x.device, non_blocking=True)}
    if len(listed) != x.shape[0]:
        raise ValueError(f"generator must be one, or one for each of {x.shape[0]} images, got {len(listed)}")
    return {"seed": torch.cat([_drawn(one) for one in listed]).to(x.device, non_blocking=True)}


def _drawn(generator: torch.Generator) -> Tensor:
    """Draw a seed, int64 [1], as the ops do."""
    return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=generator.device, generator=generator)
