"""Describe in words what an engine will run, for `f2d info MODEL` and for tracing differences in results."""

from torch import nn

from f2d_kernels import modules, selected_backend

from .engine import Engine
from .layers import Conv, Norm
from .plain import PlainEngine
from .plan import weight_bytes
from .skipping import TOLERANCE

LEVEL = 2 / 255  # of 8 bits, in [-1, 1]


def describe(engine: Engine | PlainEngine) -> dict[str, str]:
    """Title -> one line each: types, layouts, foldings, kernels, skipping."""
    return _describe(engine) if isinstance(engine, Engine) else _describe_plain(engine)


def _describe(engine: Engine) -> dict[str, str]:
    device, name = engine.device.type, str(engine.dtype).removeprefix("torch.")
    wide = str(engine.wide).removeprefix("torch.")
    parts: dict[str, nn.Module | None] = {
        "enhancer": engine.enhancer,
        "parser": engine.parser,
        "backbone": engine.backbone,
    }
    parts["experts"] = engine.experts
    counts = ", ".join(
        f"{part} {sum(isinstance(m, Conv) for m in module.modules())}"
        for part, module in parts.items()
        if module is not None
    )
    norms = sum(isinstance(module, Norm) and module.silu for module in engine.modules())
    found = {
        "convolutions": f"{name}, channels_last: {counts}",
        "kept in " + wide: "images, transport, GroupNorm statistics, maps, gates, attention matrix, sum of the experts",
        "kernels": f"{norms} x group_norm_silu on {_backend(device, 'group_norm_silu')}, expert_head on "
        f"{_backend(device, 'expert_head')}, lognormal_transition on {_backend(device, 'lognormal_transition')}",
        "once per image": "enhancer, parser" if engine.enhancer is not None else "parser",
        "once per step t": "time embedding, scale and shift of every residual block",
        "folded": "each expert's 1x1 into its dilated 3x3 with a channel of ones; squeeze-excitation, 1x1, gate, map "
        f"and sum into one kernel; {_first_convolution(engine)}",
        "skipped": "experts that are switched off"
        + (f", and those that cannot move the image by {TOLERANCE / LEVEL:g} of an 8-bit level" * (device == "cpu")),
        "weights in memory": f"{weight_bytes(engine) / 2**20:.1f} MiB",
    }
    if name == "bfloat16":
        found["rounding"] = "features to bfloat16 after every layer; sums inside a convolution are float32"
    return found


def _describe_plain(engine: PlainEngine) -> dict[str, str]:
    name, device = str(engine.dtype).removeprefix("torch."), engine.device.type
    layers = list(engine.net.modules())
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    norms = sum(isinstance(layer, modules.GroupNormSiLU) for layer in layers)
    found = {
        "convolutions": f"{name}, channels_last: {convolutions}",
        "kept in " + str(engine.wide).removeprefix("torch."): "images, auxiliary, transport, GroupNorm statistics",
        "kernels": f"{norms} x group_norm_silu on {_backend(device, 'group_norm_silu')}, gaussian_transition on "
        f"{_backend(device, 'gaussian_transition')}",
        "images": "whole, however large: bands of rows are of F²D-Net alone",
        "weights in memory": f"{weight_bytes(engine.net) / 2**20:.1f} MiB",
    }
    if name == "bfloat16":
        found["rounding"] = "by PyTorch's autocast, the weights at every call"
    return found


def _experts(engine: Engine) -> str:
    if engine.experts.light:
        return "each expert's 1x1, gate, map and the sum over experts into one kernel"
    return (
        "each expert's 1x1 into its dilated 3x3 with a channel of ones; "
        "squeeze-excitation, 1x1, gate, map and sum into one kernel"
    )


def _first_convolution(engine: Engine) -> str:
    both, one = engine.backbone.conv_in.weight.shape[1], engine.backbone.conv_in_repeated.weight.shape[1]
    where = " (where nothing is padded)" if engine.enhancer is not None else ""
    return f"at the first step the image and the state are one, {both} inputs to {one}{where}"


def _backend(device: str, op: str) -> str:
    return selected_backend(device, op=op)[0]
