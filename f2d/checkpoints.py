"""Checkpoints: a folder with `model.safetensors` and `config.json`; nothing in it can run code."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"


def write(folder: str | os.PathLike, config: dict, state: Mapping[str, Tensor]) -> None:
    """Store ``(config, state)`` in a folder, made if it is not there; a reader never sees half a file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _replace(folder / "model.safetensors", lambda part: save_file(tensors, part))
    _replace(folder / "config.json", lambda part: part.write_text(json.dumps(config, indent=2) + "\n"))


def read(source: str | os.PathLike) -> tuple[dict, dict[str, Tensor]]:
    """``(config, state)`` from a folder, or from the weights shipped under a preset's name.

    FileNotFoundError says which file is missing, or which presets there are; ValueError that a file is damaged.
    """
    folder = _folder(source)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; a checkpoint has config.json and model.safetensors")
    try:
        config = json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON: {error}") from error
    try:
        state = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is not a safetensors file: {error}") from error
    # copies: the file's own bytes are not aligned for the convolutions' vector loads
    return config, {name: tensor.clone() for name, tensor in state.items()}


def shipped() -> list[str]:
    """Names of the presets whose trained weights come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/model.safetensors"))


def check_fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> None:
    """ValueError unless `state` has exactly the names and shapes of `expected`, saying where they differ."""
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    problems += [
        f"{name} is {tuple(state[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise ValueError(f"{source} does not fit the network: {'; '.join(problems[:6])}{more}")


def _replace(path: Path, write_to: Callable[[Path], object]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write_to(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _folder(source: str | os.PathLike) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if source in shipped():
        return WEIGHTS / source
    presets = ", ".join(shipped()) or "none"
    raise FileNotFoundError(
        f"{str(source)!r} is neither a folder nor a preset with shipped weights (there are: {presets})"
    )
