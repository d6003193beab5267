"""Composite degradations from clean images: the order and the formulas of CDD-11, with the truth of every map.

Source: "OneRestore: A Universal Restoration Framework for Composite Degradation" (ECCV 2024) and its published generator, which
fixes no seed and records no parameter; here an image is reproduced exactly from (clean, category, seed).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from f2d.degradation import haze, low_light, rain, snow
from f2d.degradation.categories import FACTORS, parse_category
from f2d.degradation.fields import Draws

Picture = Image.Image | np.ndarray | Tensor
Parameters = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Degraded:
    """image: the same kind as the clean one. maps: tensor [4,H,W] ([B,4,H,W] for a batch) in [0, 1], order low (1 - light
    gain), haze (1 - transmission), rain (R), snow (S); zero where a factor is absent. parameters: factor -> name -> value
    (a list of them for a batch), ready for JSON. `degrade(clean, category, seed=seed)` gives the image again."""

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
    parameters: Parameters | None = None,
) -> Degraded:
    """low -> rain (x + R) or snow (x (1 - S) + S) -> haze (x t + A (1 - t)), each where `category` names it.

    Args:
        image: RGB picture (PIL), array [H,W,3] (uint8, or floating in [0, 1]), or tensor [3,H,W] or [B,3,H,W] in [0, 1].
        category: one of the eleven, such as "low_haze_rain"; the order of its factors does not matter.
        seed: whole number, or one per sample of a batch; everything random depends on it, and on nothing else.
        depth, light, rain, snow: maps [H,W] in [0, 1] to use in place of generated ones (depth: near = large).
        parameters: as a former `Degraded.parameters` had them, in place of drawn ones; what is missing is drawn.

    Returns:
        Degraded: the picture in the kind that came (8 bits for 8 bits), the maps, the parameters.

    Raises:
        TypeError, ValueError: an image, category, seed or map that does not fit, with what would.

    Example:
        >>> hard = f2d.degrade(torch.rand(3, 64, 96), "rain_low_haze", seed=7)
        >>> hard.category, hard.maps.shape
        ('low_haze_rain', torch.Size([4, 64, 96]))
    """
    category = parse_category(category)
    clean = _as_batch(image)
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * clean.shape[0]
    if len(seeds) != clean.shape[0]:
        raise ValueError(f"degrade: {len(seeds)} seeds for {clean.shape[0]} images; give one, or one each")
    given = {
        name: _as_map(name, value, clean)
        for name, value in (("depth", depth), ("light", light), ("rain", rain), ("snow", snow))
        if value is not None
    }
    unknown = sorted(set(parameters or {}) - set(FACTORS))
    if unknown:
        raise ValueError(f"degrade: parameters has no factor {', '.join(unknown)}; factors are {', '.join(FACTORS)}")
    done = [_one(c[None], category, s, given, parameters or {}) for c, s in zip(clean, seeds, strict=True)]
    images, maps, used = (list(column) for column in zip(*done, strict=True))
    if isinstance(image, Tensor) and image.ndim == 4:
        return Degraded(torch.cat(images).to(image.dtype), torch.cat(maps), category, seeds, used)
    return Degraded(_like(image, images[0][0]), maps[0][0], category, seeds[0], used[0])


def degrade_batch(
    clean: Tensor, categories: Sequence[str], seeds: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, list[Parameters]]:
    """A category and a seed for each sample: (degraded [B,3,H,W], maps [B,4,H,W], labels [B,4] in {0, 1}, parameters).

    clean [B,3,H,W] in [0, 1]. Sample b is what it would be alone.
    """
    if not len(clean) == len(categories) == len(seeds):
        raise ValueError(f"degrade_batch: {len(clean)} images, {len(categories)} categories, {len(seeds)} seeds; give one each")
    names = [parse_category(category) for category in categories]
    done = [_one(c[None], name, int(seed), {}, {}) for c, name, seed in zip(clean, names, seeds, strict=True)]
    images, maps, parameters = (list(column) for column in zip(*done, strict=True))
    labels = clean.new_tensor([[float(factor in name.split("_")) for factor in FACTORS] for name in names])
    return torch.cat(images), torch.cat(maps), labels, parameters


def _one(
    clean: Tensor, category: str, seed: int, given: dict[str, Tensor], recorded: Parameters
) -> tuple[Tensor, Tensor, Parameters]:
    """One clean image [1,3,H,W] -> (degraded, maps [1,4,H,W], parameters)."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"degrade: seed must be a whole number, got {type(seed).__name__}")
    factors, (height, width) = category.split("_"), clean.shape[-2:]
    maps, used = clean.new_zeros(1, 4, height, width), {}

    def start(factor: str, module: Any) -> tuple[dict[str, float], Draws]:
        drawn = module.draw_parameters(Draws(seed, factor, clean.device))
        used[factor] = drawn | recorded.get(factor, {})
        return used[factor], Draws(seed, f"{factor}map", clean.device)

    x = clean
    if "low" in factors:
        parameters, draws = start("low", low_light)
        light = given["light"] if "light" in given else low_light.light_map(clean, draws)
        x, maps[:, 0:1] = low_light.darken(x, light, parameters, draws)
    if "rain" in factors:
        parameters, draws = start("rain", rain)
        maps[:, 2:3] = given["rain"] if "rain" in given else rain.rain_mask(height, width, parameters, draws)
        x = rain.add_rain(x, maps[:, 2:3])
    if "snow" in factors:
        parameters, draws = start("snow", snow)
        maps[:, 3:4] = given["snow"] if "snow" in given else snow.snow_mask(height, width, parameters, draws)
        x = snow.add_snow(x, maps[:, 3:4])
    if "haze" in factors:
        parameters, draws = start("haze", haze)
        depth = given["depth"] if "depth" in given else haze.depth_map(clean, draws)
        x, maps[:, 1:2] = haze.add_haze(x, depth, parameters)
    return x.clamp(0, 1), maps, used


def _as_batch(image: Picture) -> Tensor:
    """[B,3,H,W] float32 in [0, 1] of any kind of picture `degrade` takes."""
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise ValueError(f"degrade: the picture's mode is {image.mode}; convert it with image.convert('RGB')")
        image = np.array(image)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"degrade: the array is {image.shape}; give [H,W,3]")
        scale = 255 if image.dtype == np.uint8 else 1
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / scale
    if not isinstance(image, Tensor):
        raise TypeError(f"degrade: image must be a PIL picture, an array or a tensor, got {type(image).__name__}")
    if not image.is_floating_point() or image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
        raise ValueError(f"degrade: the tensor is {tuple(image.shape)} {image.dtype}; give [3,H,W] or [B,3,H,W], floating")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"degrade: values lie in [{image.min():.3g}, {image.max():.3g}]; give them in [0, 1]")
    return image.float().reshape(-1, *image.shape[-3:])


def _as_map(name: str, value: Any, clean: Tensor) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float32, device=clean.device)
    if value.shape != clean.shape[-2:]:
        raise ValueError(f"degrade: {name} is {tuple(value.shape)}; give [H,W] = {tuple(clean.shape[-2:])}")
    if value.min() < 0 or value.max() > 1:
        raise ValueError(f"degrade: {name} lies in [{value.min():.3g}, {value.max():.3g}]; give values in [0, 1]")
    return value[None, None]


def _like(image: Picture, result: Tensor) -> Picture:
    """`result` [3,H,W] as the kind of picture that `image` is."""
    if isinstance(image, Tensor):
        return result.to(image.dtype)
    array = result.permute(1, 2, 0).cpu().numpy()
    if isinstance(image, np.ndarray) and image.dtype != np.uint8:
        return array.astype(image.dtype)
    array = (array * 255).round().astype(np.uint8)
    return array if isinstance(image, np.ndarray) else Image.fromarray(array)
