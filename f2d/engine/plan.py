"""Predict the memory of a restoration, and choose how to fit it into a budget."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import nn

from f2d.nets import F2DNetConfig
from f2d.nets.models import Config
from f2d.nets.resflow import ResFlowConfig

POSITIONS = 1 << 16  # positions of a band; larger bands are no faster
LEAST_ROWS = 8  # rows of a band; the widest convolution (dilation 4) reads as many again around it
PROGRAM = 450 << 20  # Python, PyTorch and the kernels, before any image
# Linux's control groups: the controller, none in the second version -> files of limit and usage, entry of memory.stat
_GROUPS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
SHARE = 0.8  # share of the free memory that is used if no budget is given


class BudgetError(ValueError):
    """An image does not fit into the given memory; the message names the least that suffices."""


class Plan(NamedTuple):
    """How to restore an image.

    With whole, the network passes over the whole image; otherwise over bands of `positions` (see `engine.bands`), with
    features in memory or, with in_files, in `disk_bytes` of temporary files. predicted_bytes is the peak memory of the
    process.
    """

    whole: bool
    positions: int
    in_files: bool
    predicted_bytes: int
    disk_bytes: int


def plan(
    height: int,
    width: int,
    max_memory: int,
    dtype: torch.dtype,
    config: Config,
    *,
    weights: int = 0,
    steps: int = 1,
    batch: int = 1,
    exact: bool = False,
) -> Plan:
    """Choose the fastest way to restore a height x width image within `max_memory` bytes: whole, bands, bands in files.

    The prediction covers the process: the program, `weights` bytes beyond it, the image as floating-point numbers
    before and after, the maps, and the network's features. For a whole image the features grow with its pixels; in
    bands, which only F²D-Net has, they are those of a few layers; with features in files only one band is in memory,
    whatever the image. exact always chooses a whole pass, and batch is the number of images in it. Raises BudgetError,
    a ValueError that names the least budget that suffices.
    """
    pixels = height * width
    images = PROGRAM + weights + pixels * _image_bytes(config)
    each = _resflow_bytes(config, dtype) if isinstance(config, ResFlowConfig) else _whole_bytes(config, dtype)
    whole = images + (batch - 1) * pixels * 24 + batch * pixels * each  # inputs and results of the other images
    if exact or whole <= max_memory:
        return Plan(True, 0, False, whole, 0)
    too_small = f"{width}x{height} does not fit into {max_memory >> 20} MiB and needs at least"
    if isinstance(config, ResFlowConfig):
        raise BudgetError(f"{too_small} {(whole >> 20) + 1} MiB: only F²D-Net can restore in bands")
    position, columns = _position_bytes(config), -(-width // config.patch)
    least = LEAST_ROWS * columns
    if images + least * position > max_memory:
        raise BudgetError(f"{too_small} {(min(whole, images + least * position) >> 20) + 1} MiB")
    positions = max(POSITIONS, least)
    fields = pixels * (_field_bytes(config, dtype) + (24 if steps > 1 else 0))
    in_memory = images + fields + positions * position
    if in_memory <= max_memory:
        return Plan(False, positions, False, in_memory, 0)
    positions = min(positions, (max_memory - images) // position)
    return Plan(False, positions, True, images + positions * position, fields)


def weight_bytes(module: nn.Module) -> int:
    """Return the number of bytes of the parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def available_memory(device: torch.device) -> int:
    """Return the default memory budget of a restoration in bytes.

    It is `SHARE` of the memory that is free on `device`, within the limits of a container or a job, plus this program's
    own part.
    """
    if device.type == "cuda":
        # PyTorch keeps what it has freed, and uses it again
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(SHARE * (torch.cuda.mem_get_info(device)[0] + cached)) + PROGRAM
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2]
    meminfo = _numbers(Path("/proc/meminfo"))
    if "MemAvailable:" in meminfo:
        free = [meminfo["MemAvailable:"] * 1024]
    return int(SHARE * max(0, min(*free, *_left_in_groups()))) + PROGRAM


def _left_in_groups(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield what each limit of this process's control groups leaves, from its own to the outermost: a container's
    limit is at the root, and that of a job of SLURM or systemd below it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        name = "memory" if "memory" in controllers.split(",") else controllers
        if name not in _GROUPS:
            continue
        limit, used, cache = _GROUPS[name]
        place = PurePosixPath(path.lstrip("/"))
        for folder in (groups / name / part for part in (place, *place.parents)):
            try:
                most, now = int((folder / limit).read_text()), int((folder / used).read_text())
            except (OSError, ValueError):  # there is no such group, or the limit is the word "max"
                continue
            yield most - now + _numbers(folder / "memory.stat").get(cache, 0)


def _numbers(path: Path) -> dict[str, int]:
    """Read the first two words of every line of a kernel file; {} if it does not exist."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


# Bytes per pixel (per position of a band) are upper bounds of measured values: see tests/engine/test_plan.py


def _image_bytes(config: Config) -> int:
    """Count input, a copy, output, a conversion to 8 bits and the maps in float32, and the 8-bit image."""
    return 4 * 12 + 4 * len(config.factors) + 6


def _whole_bytes(config: F2DNetConfig, dtype: torch.dtype) -> int:
    """Count all experts' features at once, the backbone's twice, the image, its maps and the prediction."""
    channels = config.expert_width * (len(config.factors) + 2) + 2 * config.stage_widths[0] + 2
    return channels * dtype.itemsize // config.patch**2 + 100


def _resflow_bytes(config: ResFlowConfig, dtype: torch.dtype) -> int:
    """Count the finest level's skips and modulations, one decoder block with its inputs, images and prediction.

    Measured, float32: resflow-lite 530 of these 856 (bf16: 390 of 488), resflow-paper 8600 of 11896.
    """
    first, second = config.widths[0], config.widths[min(1, len(config.widths) - 1)]
    channels = (config.blocks[0] + 3) * first + 6 * (first + second)
    return channels * dtype.itemsize // config.patch**2 + 120


def _field_bytes(config: F2DNetConfig, dtype: torch.dtype) -> int:
    """Count the largest set of features that exist at the same time, at full resolution, and the maps."""
    first, second = config.stage_widths[0], config.stage_widths[min(1, len(config.stage_widths) - 1)]
    upward = (second + 3 * first) * dtype.itemsize
    experts = (first + 2 * config.expert_width) * dtype.itemsize + 4 * config.head_channels
    enhancer = 3 * (config.enhancer_width or 0) * dtype.itemsize
    image = 0 if config.enhancer_width is None else 12
    return (max(upward, experts, enhancer) + 4 * len(config.factors)) // config.patch**2 + image + 8


def _position_bytes(config: F2DNetConfig) -> int:
    """Count attention's inner layer, with four times the bottleneck's channels in a few copies of up to four bytes."""
    return 40 * max(config.stage_widths[-1], config.expert_width) + 200
