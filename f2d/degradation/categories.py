"""The four factors and the eleven composites of CDD-11."""

FACTORS = ("low", "haze", "rain", "snow")
CATEGORIES = (
    "low",
    "haze",
    "rain",
    "snow",
    "low_haze",
    "low_rain",
    "low_snow",
    "haze_rain",
    "haze_snow",
    "low_haze_rain",
    "low_haze_snow",
)


def parse_category(name: str) -> str:
    """Return the published name of a composite whose factors may be in any order; ValueError lists all names."""
    if not isinstance(name, str):
        raise TypeError(f"category must be a string such as 'low_haze_rain', got {type(name).__name__}")
    parts = name.split("_")
    ordered = "_".join(factor for factor in FACTORS if factor in parts)
    if ordered not in CATEGORIES or len(set(parts)) != len(parts) or set(parts) - set(FACTORS):
        raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, got {name!r}")
    return ordered
