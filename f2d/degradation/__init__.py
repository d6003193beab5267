"""Synthesise low light, haze, rain and snow, alone and overlapping, from clean images."""

from f2d.degradation.categories import CATEGORIES, FACTORS, parse_category
from f2d.degradation.synthesis import Degraded, degrade, degrade_batch, varied_parameters

__all__ = ["CATEGORIES", "FACTORS", "Degraded", "degrade", "degrade_batch", "parse_category", "varied_parameters"]
