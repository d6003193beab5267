"""ICC profiles of colour spaces that are described by numbers: those of a PNG, of an AVIF or HEIC, and of a TIFF.

``[X Y Z] = M · f(rgb)`` with M from the primaries and the white point, adapted to D50 (Bradford), and the curve f.
Sources: PNG specification, third edition, 11.3.2; ITU-T H.273, tables 2 and 3; ICC.1:2022, 8.3 and 10.
"""

import struct
from typing import NamedTuple

import numpy as np

_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_NTSC = ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
BT709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65)
# H.273, colour primaries: red, green, blue, white in x, y
_PRIMARIES = {
    1: BT709,
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
    6: (*_NTSC, _D65),
    7: (*_NTSC, _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
    11: (*_P3, _DCI),
    12: (*_P3, _D65),
    22: ((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), _D65),
}
# ICC.1 parametric curves: (g) is x^g; (g, a, b, c, d) is (a x + b)^g from d on, c x below
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
# H.273, transfer characteristics
_CURVES = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: SRGB_CURVE,
}
HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics beyond white, for which ICC profiles have no curve
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SAMPLES = 1024  # of a curve of 16 bits
_D50 = np.array([0.9642, 1.0, 0.8249])


class Space(NamedTuple):
    """primaries: red, green, blue and white, each (x, y). curve: parameters of an ICC parametric curve. tables: in its
    place, samples in [0, 1] of one curve for all channels or one for each."""

    primaries: tuple
    curve: tuple[float, ...]
    tables: tuple[np.ndarray, ...] = ()


def from_code_points(primaries: int, transfer: int) -> Space | None:
    """Return the space of these numbers of H.273 (cICP, nclx), None if it is unspecified or has no profile."""
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        return None
    return Space(_PRIMARIES[primaries], _CURVES[transfer])


def profile_if_rgb(profile: bytes) -> bytes:
    """Return an image's profile for its pixels in RGB: b"" for one of grey or of inks, which no longer suits them."""
    return profile if profile[16:20] == b"RGB " else b""


def profile_unless_srgb(space: Space, grey: bool) -> bytes:
    """Return `profile`, b"" for a space that is sRGB up to rounding."""
    same = (
        not space.tables
        and space.curve == SRGB_CURVE
        and all(abs(a - b) < 2e-3 for one, two in zip(space.primaries, BT709) for a, b in zip(one, two))
    )
    return b"" if same else profile(space, grey)


def profile(space: Space, grey: bool) -> bytes:
    """Return an ICC profile (version 4.3, display) of `space`, for grey or RGB pixels.

    Raises ValueError for primaries that span no colours.
    """
    red, green, blue, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in _checked(space.primaries))
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white)) @ _BRADFORD
    columns = np.stack([red, green, blue], axis=1)
    matrix = adapted @ columns @ np.diag(np.linalg.solve(columns, white))
    curves = [_sampled(table) for table in space.tables] or [_parametric(space.curve)]
    tags = {b"desc": _text("Colours as described in the file"), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50)}
    tags[b"chad"] = b"sf32\0\0\0\0" + _fixed(*adapted.flat)
    if grey:
        tags[b"kTRC"] = curves[0]
    else:
        for name, column, curve in zip((b"r", b"g", b"b"), matrix.T, curves * (3 // len(curves))):
            tags[name + b"XYZ"], tags[name + b"TRC"] = _xyz(column), curve
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    kind = b"GRAY" if grey else b"RGB "
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    header = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(data), b"", 0x04300000, b"mntr", kind, b"XYZ ") + date
    header += b"acsp" + b"\0" * 28 + _fixed(*_D50)
    return header.ljust(128, b"\0") + table + data


def _checked(primaries: tuple) -> tuple:
    (xr, yr), (xg, yg), (xb, yb), _ = primaries
    area = abs((xg - xr) * (yb - yr) - (xb - xr) * (yg - yr))
    if area < 1e-3 or not all(0 < y <= 1 and 0 <= x <= 1 for x, y in primaries):
        raise ValueError("its primaries span no colours")
    return primaries


def _parametric(parameters: tuple[float, ...]) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", {1: 0, 5: 3}[len(parameters)], 0) + _fixed(*parameters)


def _sampled(table: np.ndarray) -> bytes:
    places = np.linspace(0, len(table) - 1, min(len(table), _SAMPLES))
    values = np.interp(places, np.arange(len(table)), table * 65535).round().astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + values.tobytes()


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", max(-(2**31), min(2**31 - 1, round(float(v) * 65536)))) for v in values)
