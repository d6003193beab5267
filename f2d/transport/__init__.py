"""The forward-only transport from a degraded image to the clean one: its schedules, prediction targets and samplers."""

from .resflow import ResFlow
from .samplers import SAMPLERS, sampling_times, transport
from .schedules import SIGMA2, THETA, LogNormalSchedule
from .straight import StraightFlow
from .targets import TARGETS, mu_of, target_of

__all__ = [
    "SAMPLERS",
    "SIGMA2",
    "TARGETS",
    "THETA",
    "LogNormalSchedule",
    "ResFlow",
    "StraightFlow",
    "mu_of",
    "sampling_times",
    "target_of",
    "transport",
]
