"""base + Σ_k gates · maps · (weight[k] (channel_scale ⊙ features) + bias[k]): the experts' last convolution, mixed."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases.stages import EXPERTS, PRESETS, stage_case
from bench.registry import Arguments, Case, Op, Traffic, draw, uniform
from f2d_kernels import expert_head

NAMES = {
    "lite/restore/1080x720/f32": True,
    "lite/restore/1080x720/bf16/nhwc": True,
    "base/restore/1080x720/bf16/nhwc": False,
    "base/restore/512x512/f32": False,
    "paper/restore/512x512/bf16/nhwc": False,
    "lite/train/256x256/b8/f32": True,
    "lite/train/256x256/b8/bf16/nhwc": False,
    "paper/train/256x256/b2/f32": False,
}


def inputs(case: Case, device: torch.device) -> Arguments:
    batch, channels, height, width = case.image
    features = case.options["features"]
    return {
        "features": draw((batch, EXPERTS, features, height, width), case, device),
        "weight": draw((EXPERTS, channels, features), case, device, channels_last=False) / features**0.5,
        "bias": draw((EXPERTS, channels), case, device, channels_last=False),
        "channel_scale": uniform((batch, EXPERTS, features), 0, 1, device).to(case.dtype),
        "gates": uniform((batch, EXPERTS), 0, 1, device).to(case.dtype),
        "maps": uniform((batch, EXPERTS, height, width), 0, 1, device).to(case.dtype),
        "base": draw(case.image, case, device),
    }


def mixing(deltas_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Mix the experts' predictions ``deltas_of(features, weight, bias, channel_scale)`` by gates and maps."""

    def mixed(gates: Tensor, maps: Tensor, base: Tensor, **of_experts: Tensor) -> Tensor:
        return base + ((gates[:, :, None, None] * maps)[:, :, None] * deltas_of(**of_experts)).sum(1)

    return mixed


@mixing
def by_einsum(features: Tensor, weight: Tensor, bias: Tensor, channel_scale: Tensor) -> Tensor:
    deltas = torch.einsum("kcf,bkfhw->bkchw", weight, channel_scale[..., None, None] * features)
    return deltas + bias[:, :, None, None]


@mixing
def by_grouped_convolution(features: Tensor, weight: Tensor, bias: Tensor, channel_scale: Tensor) -> Tensor:
    experts, channels, _ = weight.shape
    scaled = (channel_scale[..., None, None] * features).flatten(1, 2)
    deltas = F.conv2d(scaled, weight.flatten(0, 1)[..., None, None], bias.flatten(), groups=experts)
    return deltas.unflatten(1, (experts, channels))


@mixing
def by_folded_weights(features: Tensor, weight: Tensor, bias: Tensor, channel_scale: Tensor) -> Tensor:
    """Fold the scale into the weights: one matrix product per sample and expert, without scaled features."""
    folded = weight * channel_scale[:, :, None]
    deltas = (folded @ features.flatten(3)).unflatten(3, features.shape[-2:])
    return deltas + bias[:, :, None, None]


def published(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    channel_scale: Tensor,
    gates: Tensor,
    maps: Tensor,
    base: Tensor,
) -> Tensor:
    """Process one expert after the other: squeeze-excitation scale, 1x1 convolution, then gate and map."""
    total = base
    for k, kernel in enumerate(weight):
        scaled = features[:, k] * channel_scale[:, k, :, None, None]
        delta = F.conv2d(scaled, kernel[..., None, None], bias[k])
        total = total + gates[:, k].view(-1, 1, 1, 1) * (maps[:, k].unsqueeze(1) * delta)
    return total


def forward(case: Case) -> Traffic:
    """K·F·BHW·e + (K + 2C)·BHW·e: features, maps, base in, the result out."""
    plane = case.batch * case.plane_bytes
    read = EXPERTS * (case.options["features"] + 1) * plane + case.image_bytes
    return Traffic(read, case.image_bytes, 2 * EXPERTS + 1, 1)


def backward(case: Case) -> Traffic:
    """g, features, maps in; d_features, d_maps out (d_base is g itself, the other gradients are small)."""
    experts = EXPERTS * (case.options["features"] + 1) * case.batch * case.plane_bytes
    return Traffic(case.image_bytes + experts, experts, 2 * EXPERTS + 1, 2 * EXPERTS)


OP = Op(
    name="expert_head",
    cases=tuple(
        stage_case(
            "expert_head",
            name,
            channels=PRESETS[name.split("/")[0]].head,
            quick=quick,
            features=PRESETS[name.split("/")[0]].expert,
        )
        for name, quick in NAMES.items()
    ),
    inputs=inputs,
    ours=expert_head,
    exact=by_einsum,
    eager={"einsum": by_einsum, "grouped": by_grouped_convolution, "folded": by_folded_weights},
    compiled="folded",
    published=published,
    gradients=("features", "weight", "bias", "channel_scale", "gates", "maps", "base"),
    forward=forward,
    backward=backward,
)
