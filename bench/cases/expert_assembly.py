"""base + Σ_k gates · maps · deltas: the mixture of the experts, at the head of every model."""

import torch
from torch import Tensor

from bench.cases.stages import EXPERTS, PRESETS, stage_case
from bench.registry import Arguments, Case, Op, Traffic, draw, uniform
from f2d_kernels import expert_assembly

# the model passes a list of K predictions; "stacked" is one tensor [B,K,C,H,W]
NAMES = {
    "paper/restore/1080x720/f32": True,
    "paper/restore/1080x720/bf16/nhwc": False,
    "paper/restore/512x512/f32/stacked": False,
    "base/restore/1080x720/f32/stacked": False,
    "lite/restore/1080x720/f32/nhwc": False,
    "lite/restore/1080x720/bf16/nhwc": True,
    "lite/restore/256x256/bf16": False,
    "paper/train/512x512/b2/bf16": False,
    "paper/train/256x256/b8/f32/stacked": True,
    "base/train/256x256/b2/f32": False,
    "lite/train/256x256/b8/bf16/nhwc": False,
}


def inputs(case: Case, device: torch.device) -> Arguments:
    batch, _, height, width = case.image
    if case.options["stacked"]:
        deltas = draw((batch, EXPERTS, *case.image[1:]), case, device)
    else:
        deltas = [draw(case.image, case, device) for _ in range(EXPERTS)]
    return {
        "deltas": deltas,
        "gates": uniform((batch, EXPERTS), 0, 1, device).to(case.dtype),
        "maps": uniform((batch, EXPERTS, height, width), 0, 1, device).to(case.dtype),
        "base": draw(case.image, case, device),
    }


def by_sum(deltas: Tensor | list[Tensor], gates: Tensor, maps: Tensor, base: Tensor) -> Tensor:
    deltas = deltas if isinstance(deltas, Tensor) else torch.stack(deltas, 1)
    return base + (gates[:, :, None, None, None] * maps[:, :, None] * deltas).sum(1)


def by_einsum(deltas: Tensor | list[Tensor], gates: Tensor, maps: Tensor, base: Tensor) -> Tensor:
    deltas = deltas if isinstance(deltas, Tensor) else torch.stack(deltas, 1)
    return base + torch.einsum("bk,bkhw,bkchw->bchw", gates, maps, deltas)


def by_loop(deltas: Tensor | list[Tensor], gates: Tensor, maps: Tensor, base: Tensor) -> Tensor:
    """Multiply the small weights first, so that each expert costs one multiply and one add of a full image."""
    weights = gates[:, :, None, None] * maps
    parts = deltas.unbind(1) if isinstance(deltas, Tensor) else deltas
    for k, delta in enumerate(parts):
        base = base + weights[:, k, None] * delta
    return base


def published(deltas: Tensor | list[Tensor], gates: Tensor, maps: Tensor, base: Tensor) -> Tensor:
    """Add one expert after the other, with gate and map multiplied onto the full image."""
    parts = deltas.unbind(1) if isinstance(deltas, Tensor) else deltas
    total = base
    for k, delta in enumerate(parts):
        total = total + gates[:, k].view(-1, 1, 1, 1) * (maps[:, k].unsqueeze(1) * delta)
    return total


def forward(case: Case) -> Traffic:
    """(K + 2)·BCHW·e + K·BHW·e: deltas, maps, base in, the result out."""
    maps = case.batch * EXPERTS * case.plane_bytes
    return Traffic((EXPERTS + 1) * case.image_bytes + maps, case.image_bytes, 2 * EXPERTS + 1, 1)


def backward(case: Case) -> Traffic:
    """g, deltas, maps in; d_deltas, d_maps out (d_base is g itself)."""
    maps = case.batch * EXPERTS * case.plane_bytes
    experts = EXPERTS * case.image_bytes
    return Traffic(case.image_bytes + experts + maps, experts + maps, 2 * EXPERTS + 1, 2 * EXPERTS)


OP = Op(
    name="expert_assembly",
    cases=tuple(
        stage_case(
            "expert_assembly", name, channels=PRESETS[name.split("/")[0]].head, quick=quick, stacked="stacked" in name
        )
        for name, quick in NAMES.items()
    ),
    inputs=inputs,
    ours=expert_assembly,
    exact=by_sum,
    eager={"sum": by_sum, "einsum": by_einsum, "loop": by_loop},
    compiled="sum",
    published=published,
    gradients=("deltas", "gates", "maps", "base"),
    forward=forward,
    backward=backward,
)
