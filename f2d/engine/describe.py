"""Describe what an engine will run, for `f2d info MODEL` and for tracing differences in results."""

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
    name, wide = (str(dtype).removeprefix("torch.") for dtype in (engine.dtype, engine.wide))
    if isinstance(engine, Engine):
        parts = {name: part for name, part in engine.named_children() if name != "gate"}
        counts = [f"{name} {sum(isinstance(m, Conv) for m in part.modules())}" for name, part in parts.items()]
        convolutions = ", ".join(counts)
        ops: tuple[str, ...] = ("expert_head", "lognormal_transition")
        kept = "images, transport, GroupNorm statistics, maps, gates, attention matrix, sum of the experts"
        norms = sum(isinstance(module, Norm) and module.silu for module in engine.modules())
        invisible = f", and those that cannot move the image by {TOLERANCE / LEVEL:g} of an 8-bit level"
        more = {
            "once per image": "enhancer, parser" if engine.enhancer is not None else "parser",
            "once per step t": "time embedding, scale and shift of every residual block",
            "folded": f"{_experts(engine)}; {_first_convolution(engine)}",
            "skipped": "experts that are switched off" + invisible * (engine.device.type == "cpu"),
        }
        network: nn.Module = engine
        rounding = "features to bfloat16 after every layer; sums inside a convolution are float32"
    else:
        network, rounding = engine.net, "by PyTorch's autocast, the weights at every call"
        convolutions, ops = str(sum(isinstance(m, nn.Conv2d) for m in network.modules())), ("gaussian_transition",)
        kept = "images, auxiliary, transport, GroupNorm statistics"
        norms = sum(isinstance(layer, modules.GroupNormSiLU) for layer in network.modules())
        more = {"images": "never split, however large: only F²D-Net can restore in bands"}
    backends = [f"{op} on {selected_backend(engine.device.type, op=op)[0]}" for op in ("group_norm_silu", *ops)]
    found = {
        "convolutions": f"{name}, channels_last: {convolutions}",
        f"kept in {wide}": kept,
        "kernels": f"{norms} x {', '.join(backends)}",
        **more,
        "weights in memory": f"{weight_bytes(network) / 2**20:.1f} MiB",
    }
    return found | {"rounding": rounding} if name == "bfloat16" else found


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
