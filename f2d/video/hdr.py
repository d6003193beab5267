"""Static HDR metadata of a frame, as the encoders of H.265 and AV1 take it: SMPTE ST 2086 and CTA-861.3."""

import struct
from fractions import Fraction

import av


def parameters(frame: av.VideoFrame, encoder: str) -> list[str]:
    """Return the parameters NAME=VALUE that make an encoder (libx265, libsvtav1) write the metadata of `frame`: the
    colours and luminances of the mastering display, and the largest and mean content light level, in cd/m²."""
    x265 = encoder == "libx265"
    found = []
    for data in frame.side_data:
        if data.type.name == "MASTERING_DISPLAY_METADATA":
            display = _display(bytes(data), in_steps=x265)
            found += [f"{'master-display' if x265 else 'mastering-display'}={display}"] if display else []
        elif data.type.name == "CONTENT_LIGHT_LEVEL":
            largest, mean = struct.unpack("=2I", bytes(data)[:8])
            found.append(f"{'max-cll' if x265 else 'content-light'}={largest},{mean}")
    return found


def _display(data: bytes, *, in_steps: bool) -> str | None:
    """Write FFmpeg's AVMasteringDisplayMetadata as a text, or None if a part of it is missing.

    It is red, green, blue and white with x and y, and the least and the largest luminance: fractions of two integers.
    in_steps: as whole numbers of steps of 0.00002 and 0.0001 cd/m².
    """
    *numbers, has_colours, has_luminances = struct.unpack("=22i", data[:88])
    if not (has_colours and has_luminances):
        return None
    values = [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2])]
    if in_steps:
        texts = [str(round(value * (50000 if i < 8 else 10000))) for i, value in enumerate(values)]
    else:
        texts = [f"{float(value):.6f}" for value in values]
    red, green, blue, white, (least, most) = (texts[i : i + 2] for i in range(0, 10, 2))
    colours = zip(("G", "B", "R", "WP", "L"), (green, blue, red, white, (most, least)))
    return "".join(f"{name}({first},{second})" for name, (first, second) in colours)
