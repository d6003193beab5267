"""Transports from degraded to clean images: processes, schedules, prediction targets and samplers."""

from .interface import Draw, Restorable, Transport, sampling
from .learned import LearnedSchedule
from .lognormal import LogNormal
from .resflow import ResFlow
from .samplers import SAMPLERS, sampling_times, transport
from .schedules import SIGMA2, THETA, LogNormalSchedule
from .targets import TARGETS, mu_of, target_of

__all__ = [
    "SAMPLERS",
    "SIGMA2",
    "TARGETS",
    "THETA",
    "Draw",
    "LearnedSchedule",
    "LogNormal",
    "LogNormalSchedule",
    "ResFlow",
    "Restorable",
    "Transport",
    "mu_of",
    "sampling",
    "sampling_times",
    "target_of",
    "transport",
]
