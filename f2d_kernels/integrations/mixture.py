"""Mixtures inside other restorers: MoCE-IR's experts, PromptIR's prompts, InstructIR's channel gates.

    # before: MoCE-IR, AdapterLayer at inference, where every chosen expert sees the whole batch
    outputs = torch.stack([expert(x, shared) for expert in selected], dim=1)
    weights = gates.gather(1, top_k_indices)
    out = (weights.unsqueeze(2).unsqueeze(3).unsqueeze(4) * outputs).sum(dim=1)

    # after; the layer adds no residual
    outputs = [expert(x, shared) for expert in selected]
    out = mixture_of_experts(outputs, gates.gather(1, top_k_indices))

    # before: PromptIR, PromptGenBlock
    emb = x.mean(dim=(-2, -1))
    weights = F.softmax(linear(emb), dim=1)
    prompt = weights[:, :, None, None, None] * prompt_param.repeat(len(x), 1, 1, 1, 1)
    prompt = conv3x3(F.interpolate(torch.sum(prompt, dim=1), x.shape[2:], mode="bilinear"))

    # after
    weights = F.softmax(linear(x.mean(dim=(-2, -1))), dim=1)
    prompt = conv3x3(prompt_mixture(prompt_param, weights, x.shape[2:]))

    # before: InstructIR, ICB: scale and shift, then the gate, and the skip after the block
    gates = torch.sigmoid(fc(text)).unsqueeze(-1).unsqueeze(-1)
    out = block((x * gamma + beta) * gates) + x

    # after
    out = block(channel_gates(x, torch.sigmoid(fc(text)), gamma, beta)) + x

When MoCE-IR trains, its SparseDispatcher gives each expert only the samples routed to it; keep its `combine` for these
outputs, whose batches differ in size. All functions are differentiable in every argument, and raise the ops' errors for
shapes that do not match.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C import _are_functorch_transforms_active

from f2d_kernels.fusing.pairs import calls_plainly
from f2d_kernels.ops.expert_assembly import expert_assembly
from f2d_kernels.ops.expert_head import expert_head


def mixture_of_experts(outputs: Tensor | Sequence[Tensor], gates: Tensor, base: Tensor | None = None) -> Tensor:
    """base[b] + Σ_k gates[b,k] · outputs[b,k], one pass over memory and no stack of the outputs.

    outputs: K tensors [B,C,H,W], or [B,K,C,H,W]; gates [B,K], 0 for experts that were not routed to; base [B,C,H,W].
    (MoCE-IR: Complexity Experts are Task-Discriminative Learners, CVPR 2025.)
    """
    return expert_assembly(outputs, gates, None, base)


def projected_experts(
    features: Tensor | Sequence[Tensor], projections: Sequence[nn.Conv2d], gates: Tensor, base: Tensor | None = None
) -> Tensor:
    """base[b] + Σ_k gates[b,k] · projections[k] (features[b,k]), where each expert ends in a 1x1 convolution.

    features: K tensors [B,F,H,W], or [B,K,F,H,W]; projections: K nn.Conv2d(F, C, 1), with or without bias; gates
    [B,K]; base [B,C,H,W]. The experts' outputs are never in memory. Raises ValueError for other convolutions.
    """
    if isinstance(projections, nn.Conv2d) or not isinstance(projections, Iterable):
        kind = type(projections).__name__
        raise TypeError(f"projected_experts: projections must be a sequence of 1x1 nn.Conv2d, got {kind}")
    projections = list(projections)
    for k, conv in enumerate(projections):
        plain = _is_plain(conv) and (conv.kernel_size, conv.stride, conv.groups) == ((1, 1), (1, 1), 1)
        if not plain or conv.padding not in ((0, 0), "valid", "same"):
            raise ValueError(
                f"projected_experts: projections[{k}] must be a 1x1 nn.Conv2d without hooks or a forward of its own, "
                f"got {conv}"
            )
    sizes = {(conv.in_channels, conv.out_channels) for conv in projections}
    if len(sizes) != 1:
        raise ValueError(f"projected_experts: projections must be convolutions of one size (F, C), got {sorted(sizes)}")
    weight = torch.stack([conv.weight.flatten(1) for conv in projections])
    biases = [conv.bias for conv in projections]
    bias = None
    if any(b is not None for b in biases):
        bias = torch.stack([weight.new_zeros(weight.shape[1]) if b is None else b for b in biases])
    return expert_head(features, weight, bias, None, gates, None, base)


def _is_plain(conv: Any) -> bool:
    """Whether calling `conv` is convolving with its weight: subclasses that quantise or adapt it do more, and so do
    hooks."""
    kind = type(conv)
    if not isinstance(conv, nn.Conv2d) or not calls_plainly(conv):
        return False
    return (kind.forward, kind._conv_forward) == (nn.Conv2d.forward, nn.Conv2d._conv_forward)


def prompt_mixture(prompts: Tensor, weights: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Σ_k weights[b,k] · prompts[k], resized bilinearly to `size` (height, width) if given: [B,C,H,W].

    prompts: [K,C,h,w] or [1,K,C,h,w], shared by the batch without copies for each sample; weights [B,K].
    (PromptIR, NeurIPS 2023, prompt generation module.)
    """
    if not isinstance(prompts, Tensor) or prompts.dim() not in (4, 5) or (prompts.dim() == 5 and len(prompts) != 1):
        shape = list(prompts.shape) if isinstance(prompts, Tensor) else type(prompts).__name__
        raise ValueError(f"prompt_mixture: prompts must be [K,C,h,w] or [1,K,C,h,w], got {shape}")
    mixed = expert_assembly(prompts if prompts.dim() == 5 else prompts[None], weights)
    return mixed if size is None else F.interpolate(mixed, size, mode="bilinear")


def channel_gates(features: Tensor, mask: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """mask[b,c] · (scale[c] · features[b,c] + shift[c]): features [B,C,H,W], mask [B,C]; scale and shift [C] or, as the
    parameters gamma and beta are, [1,C,1,1]; None for 1 and 0.

    It makes two passes of PyTorch's own over the features, the second in place unless the shift has a wider dtype.
    (InstructIR, ECCV 2024, instruction condition block: the gate comes from the text.)
    """
    if not isinstance(features, Tensor) or features.dim() != 4:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"channel_gates: features must be a tensor [B,C,H,W], got {shape}")
    if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.shape != features.shape[:2]:
        raise ValueError(f"channel_gates: mask must be a tensor [B,C] = {list(features.shape[:2])}")
    for name, values in (("scale", scale), ("shift", shift)):
        if values is None:
            continue
        sizes: Any = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if sizes not in ((mask.shape[1],), (1, mask.shape[1], 1, 1)):
            raise ValueError(f"channel_gates: {name} must be a tensor [C] or [1,C,1,1], got {sizes}")
    gain = mask if scale is None else mask * scale.reshape(1, -1)
    gated = features * gain[:, :, None, None]
    if shift is None:
        return gated
    offset = (mask * shift.reshape(1, -1))[:, :, None, None]
    wider = torch.promote_types(gated.dtype, offset.dtype) != gated.dtype
    # under torch.func.vmap the offset may have a dimension that the gated features lack
    return gated + offset if wider or _are_functorch_transforms_active() else gated.add_(offset)
