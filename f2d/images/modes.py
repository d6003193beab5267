"""Pixels of a Pillow image of any mode: grey or RGB, 8 or 16 bits, followed by alpha if there is any."""

import io

import numpy as np
from PIL import Image, ImageCms

from f2d.images.formats import ImageError


def pixels_of(image: Image.Image) -> tuple[np.ndarray, str]:
    """Return [H, W, 1 to 4] uint8 or uint16, and a note on what was reduced or ignored ("" for nothing).

    Raises ImageError for numbers without a defined range.
    """
    note = ""
    if 0 in image.size:
        raise ImageError(f"has no pixels: {image.size[0]}x{image.size[1]}")
    if image.mode == "F":
        return float_levels(np.asarray(image))[..., None], "32-bit floats became 16 bits"
    if image.mode.startswith("I"):
        return _grey_pixels(image)
    if image.mode == "CMYK":
        image, note = cmyk_to_rgb(image)
    elif image.mode in ("1", "L", "LA", "La"):
        image = image.convert("LA" if image.has_transparency_data or image.mode == "La" else "L")
    else:
        image = image.convert("RGBA" if image.has_transparency_data or image.mode == "RGBa" else "RGB")
    pixels = np.array(image)
    return (pixels if pixels.ndim == 3 else pixels[..., None]), note


def float_levels(values: np.ndarray) -> np.ndarray:
    """Convert floats in [0, 1] to uint16, with rounding; raise ImageError for others, which have no defined range."""
    check_range(float(values.min()), float(values.max()))
    return (np.clip(values, 0, 1) * np.float64(65535)).round().astype(np.uint16)


def check_range(least: float, most: float) -> None:
    """Raise ImageError unless floats from `least` to `most` (NaN if one of them is) lie in [0, 1], up to rounding."""
    if not (least >= -1e-3 and most <= 1 + 1e-3):
        raise ImageError(
            f"its floating-point values must lie in [0, 1], because other ranges are undefined, "
            f"got {least:.5g} to {most:.5g}"
        )


def cmyk_to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert CMYK to sRGB by its ICC profile, or without one by ``(255 - ink) (255 - black) / 255``."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            assert converted is not None  # as it is where nothing is done in place
            return converted, ""
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            return image.convert("RGB"), "an unusable ICC profile was dropped"
    return image.convert("RGB"), ""


def _grey_pixels(image: Image.Image) -> tuple[np.ndarray, str]:
    values = np.asarray(image)
    if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise ImageError("32-bit pixels have no defined range (convert the file to 8 or 16 bits)")
    values = values.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))
    if bits == (12,):
        values = (values.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
    if tags.get(262) == 0:  # white is zero
        values = 65535 - values
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        return np.dstack([values, np.where(values == clear, 0, 65535).astype(np.uint16)]), ""
    return values[..., None], "integers of 32 bits were taken for 16 bits" if bits == (32,) else ""
