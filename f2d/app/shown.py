"""Draw previews no larger than a screen, and maps over their image."""

import numpy as np
from PIL import Image

from f2d.images.sheet import colour_map

SIDE = 1600  # pixels of the long side
EXACT = 200_000  # pixels up to which an image is sent losslessly
STRONGEST = 0.8  # opacity of the colour where a map is 1, so that the image stays visible


def fitted(picture: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB (RGBA if it has transparency), its long side at most `SIDE`."""
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    scale = min(1, SIDE / max(picture.size))
    if scale == 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2)


def overlay(picture: Image.Image, values: np.ndarray) -> Image.Image:
    """``(1 - a m) · 0.6 · grey + a m · colour(m)``: draw a map [H, W] in [0, 1] over the dimmed grey image.

    a is `STRONGEST`, and the colours are those of `colour_map`. The result is RGB at half the image's size, which is
    enough because maps are smooth.
    """
    size = max(1, picture.width // 2), max(1, picture.height // 2)
    plain = picture.convert("RGB")  # without transparency
    grey = np.asarray(plain.resize(size, Image.Resampling.BOX).convert("L"), np.float32)[..., None]
    values = np.ascontiguousarray(values, np.float32)
    small = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX)).clip(0, 1)
    part = STRONGEST * small[..., None]
    mixed = (1 - part) * 0.6 * grey + part * np.asarray(colour_map(small), np.float32)
    return Image.fromarray(mixed.round().astype(np.uint8))
