"""Parse option values that are more than a number: factors, strengths, sizes in bytes."""

import re

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def names(text: str | None, option: str = "--only", such_as: str = "rain,haze") -> list[str] | None:
    """``rain,haze`` -> ["rain", "haze"]; None for None. Raises ValueError, naming the option, if there are no names."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise ValueError(f"{option} must be names such as {such_as}, got {text!r}")
    return parts


def strengths(texts: list[str]) -> dict[str, float] | None:
    """``["low=0.5", "rain=1"]`` -> the numbers by name; None for an empty list. Raises ValueError for other texts."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = None
        if not (name and equals) or value is None:
            raise ValueError(f"--strength {text}: must be FACTOR=NUMBER, such as low=0.5")
        if name in found:
            raise ValueError(f"--strength: {name} is set twice")
        found[name] = value
    return found or None


def size_in_bytes(text: str | None) -> int | None:
    """``4G`` -> 4 · 2^30, also 512M, 1.5GiB, 800000; None for None. Raises ValueError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"--max-memory {text}: must be a number of bytes, such as 4G or 512M")
    return int(float(match[1]) * _UNITS[match[2].upper()])
