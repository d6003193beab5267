"""Read the authors' checkpoints (.pt files) and translate them to this package's names."""

import json
import os
import re
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

# The authors' tasks, by number of experts. The order of the five is not published: pass `factors` if yours differs.
FACTORS = {
    3: ("noise", "haze", "rain"),
    4: ("low", "haze", "rain", "snow"),
    5: ("noise", "haze", "rain", "blur", "low"),
}


# Names of the authors' options, and the fields that they must agree with or that they set
SIZES = {
    "base_ch": lambda config: config["stage_widths"][0],
    "emb_dim": lambda config: config["time_dim"],
    "num_experts": lambda config: len(config["factors"]),
    "adapter_dim": lambda config: config["expert_width"],
    "freq_emb_dim": lambda config: config["frequency_dim"],
    "use_brightness_enhancer": lambda config: config["enhancer_width"] is not None,
}
ENHANCER_SIZES = {
    "brightness_enhancer_ch": lambda config: config["enhancer_width"],
    "brightness_enhancer_blocks": lambda config: config["enhancer_blocks"],
}
PROCESS = {"num_timesteps": "num_steps", "theta_schedule": "theta", "sigma_schedule": "sigma2"}
CHOICES = {
    "model_type": ("SFLOW", "FLOW", "FINAL_X"),
    "theta_schedule": ("cosine", "linear"),
    "sigma_schedule": ("linear", "cosine"),
    "sigmas_scale": (1,),
}


def translate(name: str) -> str:
    """Translate a parameter name of the authors to ours (rules in official_keys.json)."""
    for pattern, replacement in _rewrites():
        name = pattern.sub(replacement, name)
    return name


def read_official(path: str | os.PathLike, weights: str = "ema") -> tuple[dict, dict[str, Tensor]]:
    """Read ``(config, state)`` of an authors' checkpoint: "model", or "ema", whose averages replace those of "model".

    Sizes, the enhancer and the number of factors are inferred from the shapes. Target, steps, schedules, the enhancer's
    threshold and the names of the factors come from "args", the authors' options, if the file has them. "ema" may be
    the averaged tensors themselves. The file is loaded without running code.

    Raises ValueError for other `weights`, for a file that is not a PyTorch file or lacks these entries, for tensors
    that no F²D-Net has, and for options that are unknown or contradict the shapes.
    """
    if weights not in ("model", "ema"):
        raise ValueError(f"weights must be 'model' or 'ema', got {weights!r}")
    checkpoint = _load(path)
    entries = list(map(str, checkpoint)) if isinstance(checkpoint, Mapping) else []
    found = f"it has {', '.join(entries[:8]) or 'nothing'}"
    if not isinstance(checkpoint, Mapping) or "model" not in entries:
        raise ValueError(f"{path} has no 'model' entry, unlike the authors' checkpoints ({found})")
    state = _tensors(checkpoint["model"], f"{path}: 'model'")
    if weights == "ema":
        if "ema" not in entries:
            raise ValueError(f"{path} has no 'ema' entry ({found}), so use weights='model'")
        shadow = _averaged(checkpoint["ema"], path)
        strange = sorted(set(shadow) - set(state))
        if strange:
            raise ValueError(f"{path}: 'ema' averages parameters that 'model' lacks: {', '.join(strange[:6])}")
        state |= shadow
    renamed = {translate(name): tensor for name, tensor in state.items()}
    if len(renamed) < len(state):
        raise ValueError(f"{path} contains a parameter under two names")
    try:
        config = infer_config(renamed)
    except KeyError as error:
        raise ValueError(f"{path} is not an F²D-Net: it has no {error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not an F²D-Net: its {error}") from error
    return config | _options(checkpoint.get("args"), config, path), renamed


def _averaged(ema: object, path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the averaged tensors: "shadow" and "shadow_buffers" of the mapping `ema`, or that mapping itself."""
    if isinstance(ema, Mapping) and ema and all(isinstance(value, Tensor) for value in ema.values()):
        return _tensors(ema, f"{path}: 'ema'")
    if not isinstance(ema, Mapping) or "shadow" not in ema:
        raise ValueError(f"{path}: 'ema' has no 'shadow', the averaged tensors, so use weights='model'")
    shadow, buffers = (
        _tensors(ema.get(part, {}), f"{path}: the {part!r} of 'ema'") for part in ("shadow", "shadow_buffers")
    )
    return shadow | buffers


def _options(args: object, config: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
    """Return the fields of `F2DNetConfig` that the authors' options `args` set; training options are ignored."""
    if args is None:
        return {}
    if not isinstance(args, Mapping):
        raise ValueError(f"{path}: 'args' is a {type(args).__name__}, not a mapping of options")
    for name, known in CHOICES.items():
        if name in args and args[name] not in known:
            raise ValueError(f"{path}: 'args' must have {name} among {', '.join(map(str, known))}, got {args[name]!r}")
    sizes = SIZES if config["enhancer_width"] is None else SIZES | ENHANCER_SIZES
    for name, size in sizes.items():
        if name in args and args[name] != size(config):
            raise ValueError(f"{path}: 'args' has {name} = {args[name]!r}, and its tensors have {size(config)}")
    found = {field: args[name] for name, field in PROCESS.items() if name in args}
    if "model_type" in args:
        found["target"] = args["model_type"]
    if config["enhancer_width"] is not None and "brightness_threshold" in args:
        found["brightness_threshold"] = args["brightness_threshold"]
    names = args.get("factors")
    if names:
        names = names.split(",") if isinstance(names, str) else names
        if not isinstance(names, list | tuple) or len(names) != len(config["factors"]):
            raise ValueError(
                f"{path}: 'args' has factors = {names!r}, and its tensors {len(config['factors'])} factors"
            )
        found["factors"] = tuple(str(name).strip() for name in names)
    return found


def _load(path: str | os.PathLike) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about pickle protocols, meant for the author of the file
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # the unpickler raises many kinds of errors for damage: struct.error, KeyError, EOFError, RuntimeError, ...
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded: it is not a PyTorch file, is damaged, or contains more than tensors and plain "
            f"containers ({type(error).__name__})"
        ) from error


def _tensors(value: object, what: str) -> dict[str, Tensor]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is a {type(value).__name__}, not a mapping of names to tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{what} must contain only tensors by name, got {name!r}: {type(tensor).__name__}")
    return dict(value)


def infer_config(state: Mapping[str, Tensor]) -> dict:
    """Infer the fields of `F2DNetConfig` from the shapes of `state` (our names).

    Raises KeyError for a missing tensor and ValueError for one with too few dimensions.
    """

    def count(pattern: str) -> int:
        found = (re.match(pattern, name) for name in state)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    def outputs(name: str, axis: int = 0) -> int:
        shape = state[f"{name}.weight"].shape
        if len(shape) <= axis:
            raise ValueError(f"{name}.weight is {tuple(shape)}, neither a matrix nor a convolution")
        return shape[axis]

    down = "backbone.down_blocks"
    stages = count(rf"{re.escape(down)}\.(\d+)\.")
    encoder = range(2, count(r"parser\.encoder\.(\d+)\."), 2)
    decoder = range(2, count(r"parser\.decoder\.(\d+)\.") - 1, 2)
    factors = state["gate.complexity_bias"].numel()
    has_enhancer = "enhancer.conv_in.weight" in state
    return {
        "factors": FACTORS.get(factors, tuple(f"factor{k}" for k in range(factors))),
        "stage_widths": tuple(outputs(f"{down}.{i}.0.conv1") for i in range(stages)),
        "blocks_per_stage": tuple(count(rf"{re.escape(down)}\.{i}\.(\d+)\.") for i in range(stages)),
        "bottleneck_blocks": count(r"backbone\.mid_blocks\.(\d+)\."),
        "attention_heads": state["backbone.mid_attention.temperature"].numel(),
        "time_dim": outputs("backbone.time_embedding.mlp.2"),
        "frequency_dim": outputs("backbone.frequency_embedding.mlp.2"),
        "expert_width": outputs("experts.0.conv1"),
        "gate_noise": 0.3 / factors if factors else 0.0,
        "enhancer_width": outputs("enhancer.conv_in") if has_enhancer else None,
        "enhancer_blocks": count(r"enhancer\.blocks\.(\d+)\."),
        "parser_widths": (outputs("parser.encoder.0"), *(outputs(f"parser.encoder.{i}") for i in encoder)),
        # a transposed convolution stores [in, out, 4, 4]
        "parser_decoder_widths": (outputs("parser.decoder.0"), *(outputs(f"parser.decoder.{i}", 1) for i in decoder)),
    }


@cache
def _rewrites() -> list[tuple[re.Pattern, str]]:
    rules = json.loads((files("f2d.checkpoints") / "official_keys.json").read_text())["rewrites"]
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]
