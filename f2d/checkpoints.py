"""Checkpoints: a folder with `model.safetensors` and `config.json`; nothing in it can run code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from f2d.replacing import replacing

WEIGHTS = Path(__file__).parent / "weights"
MODEL, CONFIG = "model.safetensors", "config.json"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # the first is what networks get


def write(folder: str | os.PathLike, config: dict, state: Mapping[str, Tensor]) -> None:
    """Store ``(config, state)`` in a folder, made if it is not there; a reader never sees half a file.

    The weights carry the configuration too: of a save that was killed between its two files, `read_weights` knows that
    they do not belong together. OSError where a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(folder / MODEL) as part:
        try:
            save_file(tensors, part, metadata={"format": "pt", "config": json.dumps(config, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(f"{folder / MODEL}: cannot be written ({error})") from error
        part.chmod(folder.stat().st_mode & 0o666)  # the library makes files that only their owner reads
    with replacing(folder / CONFIG) as part:
        part.write_text(json.dumps(config, indent=2) + "\n")


def read_config(source: str | os.PathLike) -> Any:
    """What config.json of a folder, or of the weights shipped under a preset's name, holds.

    FileNotFoundError says which file is missing, or which presets there are; ValueError that it is not JSON.
    """
    folder = find(source)
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON: {error}") from error


def read_weights(source: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors beside that config.json. ValueError for a damaged file, or one saved with another config.json."""
    path = find(source) / MODEL
    try:
        with safe_open(path, framework="pt") as file:
            saved_with = (file.metadata() or {}).get("config")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if saved_with is not None and saved_with != json.dumps(read_config(source), sort_keys=True):
        raise ValueError(f"{path} was saved with another {CONFIG} than the one beside it; copy or save both again")
    return state


def shipped() -> list[str]:
    """Names of the presets whose trained weights come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{MODEL}"))


def find(source: str | os.PathLike) -> Path:
    """The folder of a checkpoint, or of the weights shipped under a preset's name; FileNotFoundError as above."""
    folder = Path(source)
    # a folder that is only named as a preset, such as what was restored with it, does not hide it
    hides_it = source in shipped() and not (folder / CONFIG).is_file()
    if hides_it or not folder.is_dir():
        if source not in shipped():
            presets = ", ".join(shipped()) or "none"
            raise FileNotFoundError(
                f"{str(source)!r} is neither a folder nor a preset with shipped weights (there are: {presets})"
            )
        folder = WEIGHTS / source
    for name in (CONFIG, MODEL):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; a checkpoint has {CONFIG} and {MODEL}")
    return folder


def fitted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Float32 copies of `state`, in memory of their own: a file's bytes are not aligned for vector loads.

    ValueError unless `state` has exactly the names and shapes of `expected`, is float16, bfloat16, float32 or float64,
    and finite, saying where not.
    """
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    common = {name: state[name] for name in expected if name in state}
    for name, tensor in common.items():
        if tensor.shape != expected[name].shape:
            problems.append(f"{name} is {tuple(tensor.shape)} and should be {tuple(expected[name].shape)}")
        elif tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
            problems.append(f"{name} is {tensor.dtype} and should be {DTYPES[0]}")
    _raise(f"{source} does not fit the network", problems)
    weights = {name: tensor.detach().to(DTYPES[0], copy=True).contiguous() for name, tensor in common.items()}
    _raise(f"{source} is damaged", [f"{name} is not finite" for name, w in weights.items() if not w.isfinite().all()])
    return weights


def _raise(what: str, problems: list[str]) -> None:
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise ValueError(f"{what}: {'; '.join(problems[:6])}{more}")
