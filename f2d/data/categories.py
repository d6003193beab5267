"""Names of degradations: the eleven composites, and the additional ones of the three- and five-task sets."""

import re

from f2d.degradation import CATEGORIES, parse_category

CLEAR = "clear"
# categories that can be synthesised; the number after noise and jpeg may differ
SYNTHESISED = (*CATEGORIES, CLEAR, "noise", "noise15", "noise25", "noise50", "jpeg10")
KNOWN_FACTORS = {"low", "haze", "rain", "snow", "noise", "blur", "jpeg"}
_NOISE, _JPEG = re.compile(r"noise(\d{1,3})?"), re.compile(r"jpeg(\d{1,3})")


def canonical(category: str) -> str:
    """Return the published spelling of a composite, for any order of its factors; other names are unchanged."""
    try:
        return parse_category(category)
    except ValueError:
        return category


def factors_of(category: str) -> tuple[str, ...]:
    """``low_haze`` -> low, haze; ``noise25`` -> noise; ``jpeg10`` -> jpeg; ``clear`` -> none."""
    if category == CLEAR:
        return ()
    for factor, pattern in (("noise", _NOISE), ("jpeg", _JPEG)):
        if pattern.fullmatch(category):
            return (factor,)
    return tuple(category.split("_"))


def is_category(name: str) -> bool:
    """Whether `name` is a known degradation."""
    return name != CLEAR and set(factors_of(name)) <= KNOWN_FACTORS


def can_synthesise(category: str) -> bool:
    """Whether `finish` can synthesise the category from a clean image."""
    quality = jpeg_quality(category)
    noise = _NOISE.fullmatch(category) is not None
    return category in CATEGORIES or category == CLEAR or noise or (quality is not None and 1 <= quality <= 100)


def noise_level(category: str) -> int | None:
    """Return sigma (of 255) of ``noise25``; None for ``noise``, whose sigma is drawn."""
    found = _NOISE.fullmatch(category)
    assert found is not None
    digits = found[1]
    return int(digits) if digits else None


def jpeg_quality(category: str) -> int | None:
    """Return Q of ``jpegQ``; None for other categories."""
    match = _JPEG.fullmatch(category)
    return int(match[1]) if match else None


def check_factors(category: str, factors: tuple[str, ...], where: str = "") -> None:
    """Raise ValueError, which names the category, unless all its factors are among the network's."""
    missing = [factor for factor in factors_of(category) if factor not in factors]
    if missing:
        raise ValueError(
            f"{where}category {category} has {', '.join(missing)}, which is not among the network's factors: "
            f"{', '.join(factors)}"
        )
