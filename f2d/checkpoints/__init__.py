"""Checkpoints: a folder with `model.safetensors` and `config.json`; nothing in it can run code."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from f2d.checkpoints import hub
from f2d.replacing import replacing

WEIGHTS = Path(__file__).parents[1] / "weights"
MODEL, CONFIG = "model.safetensors", "config.json"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # the first is what networks get


def write(folder: str | os.PathLike, config: dict, state: Mapping[str, Tensor]) -> None:
    """Store ``(config, state)`` in a folder, created if missing; a reader never sees half a file.

    The weights also carry the configuration, so `read_weights` detects a save that was killed between its two files.
    Raises OSError if a file cannot be written.
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
    """Read config.json of a checkpoint, as `find` finds it; raise its errors, and ValueError if it is not JSON."""
    folder = find(source)
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / CONFIG} is not JSON: {error}") from error


def read_weights(source: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors beside that config.json; raise ValueError if the file is damaged or has another config.json."""
    path = find(source) / MODEL
    try:
        with safe_open(path, framework="pt") as file:
            saved_with = (file.metadata() or {}).get("config")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if saved_with is not None and saved_with != json.dumps(read_config(source), sort_keys=True):
        raise ValueError(f"{path} was saved with a different {CONFIG} from the one beside it (copy or save both again)")
    return state


def shipped() -> list[str]:
    """Return the names of the presets whose trained weights come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob(f"*/{MODEL}"))


def find(
    source: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the folder of a checkpoint: `source` itself, shipped weights, or a repository in the Hub's cache.

    source is a folder, a preset, or ``owner/name`` or ``owner/name@revision`` on the Hugging Face Hub, tried in this
    order, so the Hub is only asked for names that do not exist locally. The other arguments are those of `hub.fetch`;
    revision is a branch, tag or commit. Raises FileNotFoundError, which names the missing file, or the known presets
    and the Hub's answer; raises ValueError for a revision of a source that has none, and TypeError for what names no
    checkpoint.
    """
    _check_name(source)
    folder, repository, here = Path(source), hub.parse(source), "a folder"
    # a folder without a checkpoint that has a preset's name, such as one of results, does not hide the preset
    hides_it = source in shipped() and not (folder / CONFIG).is_file()
    if hides_it or not folder.is_dir():
        if source in shipped():
            folder, here = WEIGHTS / source, "a preset"
        else:
            presets = ", ".join(shipped()) or "none"
            unknown = f"{str(source)!r} is neither a folder nor a preset with shipped weights ({presets})"
            if repository is None or folder.exists():
                raise FileNotFoundError(unknown)
            if revision is not None and repository.revision not in (None, revision):
                raise ValueError(f"{source!r} names a revision, but revision={revision!r} is a different one")
            try:
                return hub.fetch(
                    hub.HubId(repository.name, revision or repository.revision),
                    (CONFIG, MODEL),
                    token=token,
                    cache_dir=cache_dir,
                    local_files_only=local_files_only,
                    force_download=force_download,
                )
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{unknown}, and {error}") from error
    if revision is not None:
        raise ValueError(f"{str(source)!r} is {here}, which has no revisions, but {revision!r} was requested")
    for name in (CONFIG, MODEL):
        if not (folder / name).is_file():
            inside = "".join(f", as {path.parent} has" for path in sorted(folder.glob(f"*/{MODEL}"))[:1])  # of a run
            raise FileNotFoundError(f"{folder} has no {name}, but a checkpoint has {CONFIG} and {MODEL}{inside}")
    return folder


def _check_name(source: object) -> None:
    if isinstance(source, str) or (isinstance(source, os.PathLike) and isinstance(os.fspath(source), str)):
        return
    hint = ""
    if isinstance(source, nn.Module):
        hint = " (f2d.load also takes an F2DNet or a ResFlowNet itself)"
    elif isinstance(source, Mapping):
        hint = " (to load tensors, call F2DNet(config).load_state_dict(state))"
    raise TypeError(
        f"a checkpoint must be given as a preset, a folder, or owner/name on the Hub, got {type(source).__name__}{hint}"
    )


def pinned(source: str) -> str:
    """Return `source`, or ``owner/name@commit`` for a Hub repository, so that the Hub is not asked again."""
    repository = hub.parse(source)
    if repository is None or source in shipped() or Path(source).exists():
        return source
    return f"{repository.name}@{find(source).name}"


def names_weights(text: str) -> bool:
    """Return whether `find` would look for weights under that name: a preset, a checkpoint folder, or no path."""
    path = Path(text)
    return (path / CONFIG).is_file() or text in shipped() or (hub.parse(text) is not None and not path.exists())


def fitted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Copy `state` to float32 in new memory, since a file's bytes are not aligned for vector loads. What is float64 in
    `state` and in `expected`, such as a learned schedule, stays float64.

    Raises ValueError, which names the tensors, unless `state` has exactly the names and shapes of `expected` and holds
    finite float16, bfloat16, float32 or float64 values.
    """
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in expected]
    common = {name: state[name] for name in expected if name in state}
    for name, tensor in common.items():
        if tensor.shape != expected[name].shape:
            problems.append(f"{name} must be {tuple(expected[name].shape)}, got {tuple(tensor.shape)}")
        elif tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
            problems.append(f"{name} must be {DTYPES[0]}, got {tensor.dtype}")
    _raise(f"{source} does not fit the network", problems)
    weights = {
        name: tensor.detach().to(_kept(tensor.dtype, expected[name].dtype), copy=True).contiguous()
        for name, tensor in common.items()
    }
    _raise(f"{source} is damaged", [f"{name} is not finite" for name, w in weights.items() if not w.isfinite().all()])
    return weights


def _kept(given: torch.dtype, expected: torch.dtype) -> torch.dtype:
    return torch.float64 if given == expected == torch.float64 else DTYPES[0]


def _raise(what: str, problems: list[str]) -> None:
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise ValueError(f"{what}: {'; '.join(problems[:6])}{more}")
