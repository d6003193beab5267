"""Format numbers for the page, and find the best of several."""

import math
from collections.abc import Sequence

from f2d.evaluation.markdown import number
from f2d.metrics.measure import About

_ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}


def printed(value: float | None, about: About) -> str:
    """Format a number with its measure's digits; infinity becomes its sign, an undefined value a dash."""
    return number(value, about.digits).replace("-", "−")


def best(values: Sequence[float | None], about: About) -> set[int]:
    """Return the places of the best values. Values that are printed alike tie. The set is empty for fewer than two
    values, and for measures of which neither direction is better."""
    there = {i: value for i, value in enumerate(values) if value is not None and not math.isnan(value)}
    if len(there) < 2 or not about.better:
        return set()
    first = (max if about.better == "higher" else min)(there.values())
    return {i for i, value in there.items() if printed(value, about) == printed(first, about)}


def heading(about: About) -> str:
    """``PSNR, dB ↑``: title, unit and the better direction."""
    unit = f", {about.unit}" if about.unit else ""
    return f"{about.title}{unit}{_ARROWS[about.better]}"
