"""Checkpoints of the method's authors (.pt files), translated to this package's names."""

import json
import os
import pickle
import re
from collections.abc import Mapping
from importlib.resources import files

import torch
from torch import Tensor

# The authors' tasks, by number of experts. The order of the five is not published: pass `factors` if yours differs.
FACTORS = {
    3: ("noise", "haze", "rain"),
    4: ("low", "haze", "rain", "snow"),
    5: ("noise", "haze", "rain", "blur", "low"),
}


def translate(name: str) -> str:
    """Our name of a parameter of the authors' (rules in official_keys.json)."""
    for pattern, replacement in _rewrites():
        name = pattern.sub(replacement, name)
    return name


def read_official(path: str | os.PathLike, weights: str = "ema") -> tuple[dict, dict[str, Tensor]]:
    """``(config, state)`` of an authors' checkpoint: "model", or "ema" = the average laid over "model".

    Sizes, the enhancer and the number of factors are read off the shapes. The file is loaded without running code.
    ValueError for another `weights`, for a file without such entries, or for tensors no F²D-Net has.
    """
    if weights not in ("model", "ema"):
        raise ValueError(f"weights is {weights!r}; use 'model' or 'ema'")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors and plain containers, and is not loaded: {error}") from error
    entries = list(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else []
    found = f"it has {', '.join(entries[:8]) or 'none at all'}"
    if "model" not in entries:
        raise ValueError(f"{path} has no 'model' entry, as checkpoints of the authors do; {found}")
    state = dict(checkpoint["model"])
    if weights == "ema":
        if "ema" not in entries:
            raise ValueError(f"{path} has no 'ema' entry; {found}; use weights='model'")
        shadow = checkpoint["ema"]["shadow"]
        strange = sorted(set(shadow) - set(state))
        if strange:
            raise ValueError(f"{path}: 'ema' averages parameters that 'model' lacks: {', '.join(strange[:6])}")
        state |= shadow
    state = {translate(name): tensor for name, tensor in state.items()}
    try:
        return infer_config(state), state
    except KeyError as error:
        raise ValueError(f"{path} is not an F²D-Net: it has no {error.args[0]}") from error


def infer_config(state: Mapping[str, Tensor]) -> dict:
    """Fields of `F2DNetConfig` that give a network the shapes of `state` (our names). KeyError: what is missing."""

    def count(pattern: str) -> int:
        found = (re.match(pattern, name) for name in state)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def outputs(name: str, axis: int = 0) -> int:
        return state[f"{name}.weight"].shape[axis]

    down = "backbone.down_blocks"
    stages = count(rf"{re.escape(down)}\.(\d+)\.")
    encoder = range(2, count(r"parser\.encoder\.(\d+)\."), 2)
    decoder = range(2, count(r"parser\.decoder\.(\d+)\.") - 1, 2)
    factors = len(state["gate.complexity_bias"])
    has_enhancer = "enhancer.conv_in.weight" in state
    return {
        "factors": FACTORS.get(factors, tuple(f"factor{k}" for k in range(factors))),
        "stage_widths": tuple(outputs(f"{down}.{i}.0.conv1") for i in range(stages)),
        "blocks_per_stage": tuple(count(rf"{re.escape(down)}\.{i}\.(\d+)\.") for i in range(stages)),
        "bottleneck_blocks": count(r"backbone\.mid_blocks\.(\d+)\."),
        "attention_heads": len(state["backbone.mid_attention.temperature"]),
        "time_dim": outputs("backbone.time_embedding.mlp.2"),
        "frequency_dim": outputs("backbone.frequency_embedding.mlp.2"),
        "expert_width": outputs("experts.0.conv1"),
        "enhancer_width": outputs("enhancer.conv_in") if has_enhancer else None,
        "enhancer_blocks": count(r"enhancer\.blocks\.(\d+)\."),
        "parser_widths": (outputs("parser.encoder.0"), *(outputs(f"parser.encoder.{i}") for i in encoder)),
        # a transposed convolution stores [in, out, 4, 4]
        "parser_decoder_widths": (outputs("parser.decoder.0"), *(outputs(f"parser.decoder.{i}", 1) for i in decoder)),
    }


def _rewrites() -> list[tuple[re.Pattern, str]]:
    rules = json.loads((files("f2d") / "official_keys.json").read_text())["rewrites"]
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]
