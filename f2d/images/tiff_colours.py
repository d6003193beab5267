"""Convert the white point, primaries and transfer function in a TIFF to an ICC profile.

Source: TIFF 6.0, section 20, RGB image colorimetry.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from f2d.images import icc

_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES = 301, 318, 319
COLOUR_TAGS = {_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES}


def profile_of(tags: Mapping[int, Any], grey: bool) -> tuple[bytes, str]:
    """Return the ICC profile equivalent to `tags` (b"" for sRGB), and a note on what is damaged ("" for nothing).

    Colours without a transfer function have that of sRGB, and those without primaries the primaries of sRGB.
    """
    try:
        primaries, white = (_pairs(tags.get(tag, ())) for tag in (_PRIMARIES, _WHITE_POINT))
        described = (*primaries, *(white or icc.BT709[3:])) if primaries else icc.BT709
        tables = _tables(tags)
        space = icc.Space(described, icc.SRGB_CURVE, () if all(map(_is_srgb, tables)) else tables)
        return icc.profile_unless_srgb(space, grey), ""
    except (ValueError, TypeError, ZeroDivisionError):
        return b"", "a damaged description of its colours was ignored"


def _pairs(numbers: Any) -> tuple[tuple[float, float], ...]:
    values = [float(number) for number in numbers]
    return tuple(zip(values[::2], values[1::2]))


def _tables(tags: Mapping[int, Any]) -> tuple[np.ndarray, ...]:
    """Return one curve for all channels or one for each, light as a part of white; none if there is no function."""
    values = np.asarray(tags.get(_TRANSFER_FUNCTION, ()), np.float64) / 65535
    length = 1 << int(tags.get(258, (1,))[0])
    if values.size not in (0, length, 3 * length) or not (values.size == 0 or values.max() > 0):
        raise ValueError(f"a transfer function must have {length} values or three times as many")
    return tuple(values.reshape(-1, length))


def _is_srgb(table: np.ndarray) -> bool:
    level = np.linspace(0, 1, len(table))
    g, a, b, c, d = icc.SRGB_CURVE
    return bool(np.abs(np.where(level >= d, (a * level + b) ** g, c * level) - table).max() < 2e-3)
