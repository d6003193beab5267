"""Where a forward pass takes its global quantities from: measured here, recorded on the way, or given."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Values = dict[tuple[int | None, str], Tensor]


class Statistics:
    """Every number that depends on the whole image, by (step, name), asked for through ``of(name, measure)``.

    Normalisation moments, pooled features, mean luma, gates, attention matrices: all that lets one pixel depend on
    another far away. Three modes:

        Statistics()            measures each quantity on the pixels at hand and forgets it (the default)
        Statistics.recording()  measures and keeps it in `values`
        recorded.replaying()    gives back what was kept: a tile then computes what it would inside the whole image

    A replay never measures, and a quantity that only feeds a replayed one is not computed at all. Step is the time t
    of a network call, None for the analysis of the image; `at` fixes it. A recording may be used by one pass at a time,
    a replay by any number of threads.
    """

    def __init__(self, values: Values | None = None, *, given: bool = False, step: int | None = None):
        self.values, self.given, self.step = values, given, step

    @classmethod
    def recording(cls) -> "Statistics":
        return cls({})

    def replaying(self) -> "Statistics":
        """ValueError for statistics that were never recorded."""
        if not self.values:
            raise ValueError("Statistics.replaying: nothing was recorded; run a pass with Statistics.recording() first")
        return Statistics(dict(self.values), given=True)

    def at(self, step: int | None) -> "Statistics":
        """The same statistics, for the network call at time `step`."""
        return Statistics(self.values, given=self.given, step=step)

    @property
    def measuring(self) -> bool:
        """Whether quantities are only measured, neither kept nor given: fused kernels may then measure them."""
        return self.values is None

    def of(self, name: str, measure: Callable[[], Tensor]) -> Tensor:
        """The quantity `name`; KeyError (with the name) where a replay has no such value."""
        if self.measuring:
            return measure()
        if not self.given:
            self.values[self.step, name] = value = measure()
            return value
        try:
            return self.values[self.step, name]
        except KeyError:
            raise KeyError(f"Statistics: {name} at step {self.step} was not recorded") from None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Statistics":
        """Replayed statistics whose every value went through `change`: another device, one sample of a batch."""
        values: Mapping = self.replaying().values
        return Statistics({key: change(value) for key, value in values.items()}, given=True)


def moments(x: Tensor, groups: int, eps: float) -> Tensor:
    """[2, B, C]: each channel's group mean and ``1 / sqrt(variance + eps)`` of x [B, C, H, W], in float32 or wider."""
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    grouped = x.unflatten(1, (groups, -1)).to(wide)
    variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), correction=0)
    per_group = torch.stack([mean, (variance + eps).rsqrt()])
    return per_group.repeat_interleave(x.shape[1] // groups, dim=2)
