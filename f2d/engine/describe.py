"""Describe what an engine will run, for `f2d info MODEL` and for tracing differences in results."""

from typing import NamedTuple

from torch import nn

from f2d_kernels import modules, selected_backend

from .engine import Engine
from .layers import Conv, Norm
from .plain import PlainEngine
from .plan import weight_bytes
from .skipping import TOLERANCE

LEVEL = 2 / 255  # of 8 bits, in [-1, 1]


class _Parts(NamedTuple):
    """Parts of a description: the numbers of convolutions, what stays in float32, the number of group_norm_silu, ..."""

    network: nn.Module
    convolutions: str
    wide: str
    norms: int
    ops: tuple[str, ...]
    more: dict[str, str]
    rounding: str


def describe(engine: Engine | PlainEngine) -> dict[str, str]:
    """Title -> one line each: types, layouts, foldings, kernels, skipping."""
    parts = _fast(engine) if isinstance(engine, Engine) else _plain(engine)
    name, wide = (str(dtype).removeprefix("torch.") for dtype in (engine.dtype, engine.wide))
    backends = [f"{op} on {selected_backend(engine.device.type, op=op)[0]}" for op in ("group_norm_silu", *parts.ops)]
    found = {
        "convolutions": f"{name}, channels_last: {parts.convolutions}",
        f"kept in {wide}": parts.wide,
        "kernels": f"{parts.norms} x {', '.join(backends)}",
        **parts.more,
        "weights in memory": f"{weight_bytes(parts.network) / 2**20:.1f} MiB",
    }
    return found | {"rounding": parts.rounding} if name == "bfloat16" else found


def _fast(engine: Engine) -> _Parts:
    networks = {"enhancer": engine.enhancer, "parser": engine.parser}
    networks |= {"backbone": engine.backbone, "experts": engine.experts}
    there = {name: network for name, network in networks.items() if network is not None}
    counts = [f"{name} {sum(isinstance(m, Conv) for m in network.modules())}" for name, network in there.items()]
    invisible = f", and those that cannot move the image by {TOLERANCE / LEVEL:g} of an 8-bit level"
    return _Parts(
        engine,
        ", ".join(counts),
        "images, transport, GroupNorm statistics, maps, gates, attention matrix, sum of the experts",
        sum(isinstance(module, Norm) and module.silu for module in engine.modules()),
        ("expert_head", "lognormal_transition"),
        {
            "once per image": "enhancer, parser" if engine.enhancer is not None else "parser",
            "once per step t": "time embedding, scale and shift of every residual block",
            "folded": f"{_experts(engine)}; {_first_convolution(engine)}",
            "skipped": "experts that are switched off" + invisible * (engine.device.type == "cpu"),
        },
        "features to bfloat16 after every layer; sums inside a convolution are float32",
    )


def _plain(engine: PlainEngine) -> _Parts:
    layers = list(engine.net.modules())
    return _Parts(
        engine.net,
        str(sum(isinstance(layer, nn.Conv2d) for layer in layers)),
        "images, auxiliary, transport, GroupNorm statistics",
        sum(isinstance(layer, modules.GroupNormSiLU) for layer in layers),
        ("gaussian_transition",),
        {"images": "never split, however large: only F²D-Net can restore in bands"},
        "by PyTorch's autocast, the weights at every call",
    )


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
