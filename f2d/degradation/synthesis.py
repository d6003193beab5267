"""Degrade clean images in the order and by the formulas of CDD-11, with all ground-truth maps.

Source: "OneRestore: A Universal Restoration Framework for Composite Degradation" (ECCV 2024) and its published
generator, which neither fixes a seed nor records parameters. Here (clean, category, seed) reproduces an image exactly.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from f2d.degradation import haze, low_light, rain, snow
from f2d.degradation.categories import FACTORS, parse_category
from f2d.degradation.fields import BatchDraws, Draws

Picture = Image.Image | np.ndarray | Tensor
Parameters = dict[str, dict[str, float]]
# pixels degraded together: small crops share the overhead of operations, while large images are processed one by one
TOGETHER = 2**17
_MODULES = {"low": low_light, "haze": haze, "rain": rain, "snow": snow}


@dataclass(frozen=True)
class Degraded:
    """A degraded image with its ground truth.

    image: of the same type as the clean one. maps: tensor [4,H,W] ([B,4,H,W] for a batch) in [0, 1], in the order low
    (1 - light gain), haze (1 - transmission), rain (R), snow (S); zero if a factor is absent. parameters: factor ->
    name -> value (a list of them for a batch), which JSON can hold. `degrade(clean, category, seed=seed)` reproduces
    the image; if you passed parameters or maps, pass them again.
    """

    image: Any
    maps: Tensor
    category: str
    seed: int | list[int]
    parameters: Parameters | list[Parameters] = field(default_factory=dict)


def degrade(
    image: Picture,
    category: str,
    *,
    seed: int | Sequence[int],
    depth: Tensor | None = None,
    light: Tensor | None = None,
    rain: Tensor | None = None,
    snow: Tensor | None = None,
    parameters: Parameters | Sequence[Parameters] | None = None,
) -> Degraded:
    """low -> rain (x + R) or snow (x (1 - S) + S) -> haze (x t + A (1 - t)), each if `category` contains it.

    Args:
        image: RGB Pillow image (its ICC profile is kept if it is one of RGB), array [H,W,3] (uint8, or floating point
            in [0, 1]), or tensor [3,H,W] or [B,3,H,W] in [0, 1].
        category: one of the eleven, such as "low_haze_rain"; the order of its factors does not matter.
        seed: random seed in [-2^63, 2^64), or a list with one per sample. It alone determines everything random.
        depth, light, rain, snow: maps [H,W] in [0, 1] to use instead of generated ones, the same for the whole batch.
            depth is large where objects are near.
        parameters: values in the form of `Degraded.parameters`, used instead of drawn ones; missing values are drawn.
            Maps and parameters of factors that `category` does not contain are ignored.

    Returns:
        Degraded: the image in the input's type (8 bits for 8 bits), the maps, and the parameters.

    Raises:
        TypeError, ValueError: an image, category, seed, map or parameter is invalid; the message says what it must be.

    Example:
        >>> hard = f2d.degrade(torch.rand(3, 64, 96), "rain_low_haze", seed=7)
        >>> hard.category, hard.maps.shape
        ('low_haze_rain', torch.Size([4, 64, 96]))
    """
    category = parse_category(category)
    clean = _as_batch(image)
    seeds = [_as_seed(s) for s in _one_each("seeds", seed, clean)]
    recorded = _one_each("parameters", parameters or {}, clean)
    for sample in recorded:
        _check_parameters(sample)
    given = {
        name: _as_map(name, value, clean)
        for name, value in (("depth", depth), ("light", light), ("rain", rain), ("snow", snow))
        if value is not None
    }
    images, maps, used = _all(clean, [category] * len(clean), seeds, given, recorded)
    if isinstance(image, Tensor) and image.ndim == 4:
        return Degraded(images.to(image.dtype), maps, category, seeds, used)
    return Degraded(_like(image, images[0]), maps[0], category, seeds[0], used[0])


def degrade_batch(
    clean: Tensor, categories: Sequence[str], seeds: Sequence[int], recorded: Sequence[Parameters] | None = None
) -> tuple[Tensor, Tensor, Tensor, list[Parameters]]:
    """Degrade a batch: (degraded [B,3,H,W], maps [B,4,H,W], labels [B,4] in {0, 1}, parameters).

    clean: [B,3,H,W] in [0, 1]. categories, seeds: one per sample. recorded: parameters per sample, used instead of
    drawn ones, as in `degrade`. Each sample is bit-exact with the same sample alone. Raises TypeError or
    ValueError for invalid arguments.
    """
    recorded = [{}] * len(clean) if recorded is None else recorded
    if not len(clean) == len(categories) == len(seeds):
        raise ValueError(
            f"degrade_batch: needs a category and seed per image, got {len(clean)}, {len(categories)}, {len(seeds)}"
        )
    if len(recorded) != len(clean):
        raise ValueError(f"degrade_batch: needs parameters per image, got {len(recorded)} for {len(clean)} images")
    for sample in recorded:
        _check_parameters(sample)
    if clean.ndim != 4:
        raise ValueError(f"degrade_batch: clean must be [B,3,H,W], got {tuple(clean.shape)}")
    names, seeds = [parse_category(category) for category in categories], [_as_seed(seed) for seed in seeds]
    images, maps, parameters = _all(_as_batch(clean), names, seeds, {}, recorded)
    labels = clean.new_tensor([[float(factor in name.split("_")) for factor in FACTORS] for name in names])
    return images.to(clean.dtype), maps, labels, parameters


def varied_parameters(category: str, seed: int) -> Parameters:
    """Draw the parameters of a category's factors from wider ranges than the published ones, for `degrade`.

    A network trained on them can also restore the rain, haze, snow and darkness of other datasets and cameras. The
    ranges are defined in `draw_varied` of each factor's module. category: one of the eleven. seed: the sample's, in
    [-2^63, 2^64). Raises ValueError or TypeError for other arguments.
    """
    factors = parse_category(category).split("_")
    drawn = {}
    for f in factors:
        draws = Draws(_as_seed(seed), f"{f}wide", torch.device("cpu"))
        drawn[f] = haze.draw_varied(draws, "rain" in factors) if f == "haze" else _MODULES[f].draw_varied(draws)
    return drawn


def _all(
    clean: Tensor,
    categories: Sequence[str],
    seeds: Sequence[int],
    given: dict[str, Tensor],
    recorded: Sequence[Parameters],
) -> tuple[Tensor, Tensor, list[Parameters]]:
    """Degrade clean [B,3,H,W] to (degraded, maps [B,4,H,W], parameters): a few samples at a time, and each factor for
    those that have it."""
    step = max(1, TOGETHER // clean[0, 0].numel()) if len(clean) else 1
    if len(clean) > step:
        parts = [slice(first, first + step) for first in range(0, len(clean), step)]
        each = [_all(clean[p], categories[p], seeds[p], given, recorded[p]) for p in parts]
        images, all_maps, all_used = zip(*each, strict=True)
        return torch.cat(images), torch.cat(all_maps), [parameters for part in all_used for parameters in part]
    x, maps = clean.clone(), torch.zeros_like(clean[:, :1]).repeat(1, len(FACTORS), 1, 1)
    used: list[Parameters] = [{} for _ in categories]
    for factor in ("low", "rain", "snow", "haze"):
        chosen = [b for b, category in enumerate(categories) if factor in category.split("_")]
        for b in chosen:
            drawn = _MODULES[factor].draw_parameters(Draws(seeds[b], factor, clean.device))
            used[b][factor] = drawn | recorded[b].get(factor, {})
        if chosen:
            parameters, k = [used[b][factor] for b in chosen], FACTORS.index(factor)
            draws = BatchDraws([seeds[b] for b in chosen], f"{factor}map", clean.device)
            rows = torch.tensor(chosen, device=clean.device)  # index_select copies whole samples, x[chosen] pixels
            done = _add(factor, x.index_select(0, rows), parameters, draws, given, clean.index_select(0, rows))
            for kept, made in zip((x, maps[:, k : k + 1]), done, strict=True):
                kept.index_copy_(0, rows, made)
    return x.clamp(0, 1), maps, used


def _add(
    factor: str,
    x: Tensor,
    parameters: Sequence[dict[str, float]],
    draws: BatchDraws,
    given: dict[str, Tensor],
    clean: Tensor,
) -> tuple[Tensor, Tensor]:
    """Add a factor; return (x [B,3,H,W], map [B,1,H,W])."""
    height, width = x.shape[-2:]
    external = given.get({"low": "light", "haze": "depth"}.get(factor, factor))
    if external is not None:
        external = external.expand(len(x), -1, -1, -1)
    if factor == "low":
        light = low_light.light_map(clean, draws) if external is None else external
        return low_light.darken(x, light, parameters, draws)
    if factor == "haze":
        depth = haze.depth_map(clean, draws) if external is None else external
        return haze.add_haze(x, depth, parameters)
    if factor == "rain":
        mask = rain.rain_mask(height, width, parameters, draws) if external is None else external
        return rain.add_rain(x, mask), mask
    mask = snow.snow_mask(height, width, parameters, draws) if external is None else external
    return snow.add_snow(x, mask), mask


def _one_each(what: str, value: Any, clean: Tensor) -> list[Any]:
    """Return `value`, one for all samples or a list of one per sample, as a list."""
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * len(clean)
    if len(values) != len(clean):
        raise ValueError(f"degrade: {what} must be one, or one for each of {len(clean)} images, got {len(values)}")
    return values


def _as_seed(seed: Any) -> int:
    try:
        whole = operator.index(seed)  # accepts NumPy's integers, but no float
    except TypeError:
        whole = None
    if whole is None or isinstance(seed, bool):
        raise TypeError(f"degrade: seed must be a whole number or a list of them, got {type(seed).__name__}")
    if not -(2**63) <= whole < 2**64:
        raise ValueError(f"degrade: seed must lie in [-2^63, 2^64), got {whole}")
    return whole


def _check_parameters(parameters: Parameters) -> None:
    if not isinstance(parameters, dict) or not all(isinstance(values, dict) for values in parameters.values()):
        raise TypeError(f"degrade: parameters must be factor -> name -> value, or a list of such, got {parameters!r}")
    for factor, values in parameters.items():
        if factor not in FACTORS:
            raise ValueError(f"degrade: parameters has no factor {factor!r}, only {', '.join(FACTORS)}")
        ranges = _MODULES[factor].RANGES
        for name, value in values.items():
            if name not in ranges:
                raise ValueError(f"degrade: {factor} has no parameter {name!r}, only {', '.join(ranges)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"degrade: {name} of {factor} must be a finite number, got {value!r}")
            low, high = ranges[name]
            if not low <= value <= high:
                raise ValueError(f"degrade: {name} of {factor} must lie in {low:.4g} to {high:.4g}, got {value}")


def _as_batch(image: Picture) -> Tensor:
    """Convert any image that `degrade` accepts to float32 [B,3,H,W] in [0, 1]."""
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise ValueError(f"degrade: the image must have mode RGB (image.convert('RGB')), got {image.mode}")
        image = np.array(image)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"degrade: the array must be [H,W,3], got {image.shape}")
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"degrade: the array must be uint8, or floating values in [0, 1], got {image.dtype}")
        scale = 255 if image.dtype == np.uint8 else 1
        image = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / scale
    if not isinstance(image, Tensor):
        raise TypeError(f"degrade: image must be a PIL image, an array or a tensor, got {type(image).__name__}")
    if not image.is_floating_point() or image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
        raise ValueError(
            f"degrade: the tensor must be [3,H,W] or [B,3,H,W], floating, got {tuple(image.shape)} {image.dtype}"
        )
    if not (image.min() >= 0 and image.max() <= 1):  # refuses NaN too
        raise ValueError(f"degrade: values must lie in [0, 1], got [{image.min():.3g}, {image.max():.3g}]")
    return image.float().reshape(-1, *image.shape[-3:]).contiguous()


def _as_map(name: str, value: Any, clean: Tensor) -> Tensor:
    try:
        value = torch.as_tensor(value, dtype=torch.float32, device=clean.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"degrade: {name} must be a tensor or an array [H,W], got {type(value).__name__}") from None
    if value.shape != clean.shape[-2:]:
        raise ValueError(f"degrade: {name} must be [H,W] = {tuple(clean.shape[-2:])}, got {tuple(value.shape)}")
    if not (value.min() >= 0 and value.max() <= 1):
        raise ValueError(f"degrade: {name} must lie in [0, 1], got [{value.min():.3g}, {value.max():.3g}]")
    return value[None, None]


def _like(image: Picture, result: Tensor) -> Picture:
    """Convert `result` [3,H,W] to the type of `image`."""
    if isinstance(image, Tensor):
        return result.to(image.dtype)
    array = result.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, np.ndarray) and image.dtype != np.uint8:
        return array.astype(image.dtype)
    array = (array * 255).round().astype(np.uint8)
    if isinstance(image, np.ndarray):
        return array
    picture = Image.fromarray(array)
    profile = image.info.get("icc_profile") or b""
    if profile[16:20] == b"RGB ":  # not one of grey or of inks, which Image.convert leaves in place
        picture.info["icc_profile"] = profile  # without it, colours of a wide space are shown pale
    return picture
