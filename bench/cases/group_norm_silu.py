"""silu(group_norm(x) · (1 + scale) + shift): before every convolution of the U-Net, and in the experts."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases.stages import GROUPS, PRESETS, stage_case
from bench.registry import Arguments, Case, Op, Traffic, draw
from f2d_kernels import group_norm_silu

# name -> (level of the U-Net, quick). film: scale and shift from the time embedding; mean: for squeeze-excitation
NAMES = {
    "lite/restore/1080x720/f32/film": (0, True),
    "lite/restore/1080x720/bf16/nhwc/film": (0, True),
    "lite/restore/1080x720/bf16/nhwc/mean": (0, False),
    "lite/restore/512x512/f32/level1": (1, False),
    "base/restore/1080x720/bf16/nhwc/level2/film": (2, False),
    "paper/restore/1080x720/bf16/nhwc/film": (0, False),
    "paper/restore/512x512/f32/film": (0, False),
    "lite/train/256x256/b8/f32/film": (0, True),
    "lite/train/256x256/b8/bf16/nhwc/film": (0, False),
    "paper/train/256x256/b2/f32/level1": (1, False),
    "base/train/256x256/b2/bf16/nhwc/mean": (0, False),
}
# half the size of a common last-level cache: smaller groups are still cached when they are read again
CACHED_BYTES = 16 * 2**20


def inputs(case: Case, device: torch.device) -> Arguments:
    def vector(*shape: int) -> Tensor:
        return draw(shape, case, device, channels_last=False)

    arguments: Arguments = {
        "x": draw(case.image, case, device),
        "num_groups": GROUPS,
        "weight": vector(case.channels),
        "bias": vector(case.channels),
        "return_mean": case.options["mean"],
    }
    if case.options["film"]:
        arguments |= {name: vector(case.batch, case.channels) for name in ("scale", "shift")}
    return arguments


def with_mean(result: Callable[..., Tensor]) -> Callable[..., Any]:
    """Add the argument `return_mean` of the op."""

    def results(return_mean: bool = False, **arguments: Any) -> Any:
        out = result(**arguments)
        return (out, out.mean((2, 3))) if return_mean else out

    return results


def _modulated(out: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    return out if scale is None else out * (1 + scale[:, :, None, None]) + shift[:, :, None, None]


@with_mean
def by_functions(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    return F.silu(_modulated(F.group_norm(x, num_groups, weight, bias), scale, shift))


@with_mean
def by_folded_statistics(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """Fold statistics, weights and modulation into one factor and one summand per channel."""
    batch, channels = x.shape[:2]
    variance, mean = torch.var_mean(x.unflatten(1, (num_groups, -1)), dim=(2, 3, 4), correction=0)
    each = channels // num_groups
    factor = torch.rsqrt(variance + 1e-5).repeat_interleave(each, 1) * weight
    summand = bias - mean.repeat_interleave(each, 1) * factor
    if scale is not None:
        factor, summand = factor * (1 + scale), summand * (1 + scale) + shift
    shape = (batch, channels, 1, 1)
    return F.silu(torch.addcmul(summand.view(shape), x, factor.view(shape)))


@with_mean
def published(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """Normalise in float32 for any input type, modulate, multiply by the sigmoid: as diffusion restorers do."""
    out = F.group_norm(x.float(), num_groups, weight.float(), bias.float()).to(x.dtype)
    out = _modulated(out, scale, shift)
    return out * torch.sigmoid(out)


def _stays_in_cache(case: Case) -> bool:
    """A group is read twice; channels_last, all groups of a sample are read together."""
    groups = 1 if case.channels_last else GROUPS
    return case.image_bytes / case.batch / groups <= CACHED_BYTES


def forward(case: Case) -> Traffic:
    """3·size·e: x twice in, the result out; 2 where a group stays in cache."""
    reads = 1 if _stays_in_cache(case) else 2
    return Traffic(reads * case.image_bytes, case.image_bytes, reads, 1)


def backward(case: Case) -> Traffic:
    """g and x in (twice, unless a group stays in cache), d_x out."""
    reads = 2 if _stays_in_cache(case) else 4
    return Traffic(reads * case.image_bytes, case.image_bytes, reads, 1)


OP = Op(
    name="group_norm_silu",
    cases=tuple(
        stage_case(
            "group_norm_silu",
            name,
            channels=PRESETS[name.split("/")[0]].stages[level],
            level=level,
            quick=quick,
            film="film" in name,
            mean="mean" in name,
        )
        for name, (level, quick) in NAMES.items()
    ),
    inputs=inputs,
    ours=group_norm_silu,
    exact=by_functions,
    eager={"functions": by_functions, "folded": by_folded_statistics},
    compiled="functions",
    published=published,
    gradients=("x", "weight", "bias", "scale", "shift"),
    forward=forward,
    backward=backward,
)
