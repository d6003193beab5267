"""Refuse a run that cannot work, before its first step."""

import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path

import torch

from f2d.data import Mixture
from f2d.data.lmdb import is_lmdb
from f2d.data.pictures import is_hidden
from f2d.degradation import FACTORS
from f2d.nets import F2DNet
from f2d.nets.models import Network
from f2d.training.callbacks import BEST, DATA, LAST, LOSSES, RECIPE, WEIGHTS
from f2d.training.recipe import Recipe
from f2d.transport import sampling

# fields that may change on resuming: how and how long a run runs, but not what it computes
CHANGEABLE = (
    "steps",
    "decay_steps",
    "workers",
    "strategy",
    "synthesis",
    "most_bad_steps",
    "save_every",
    "validate_every",
)


def check_folder(out: Path, recipe: Recipe, resume: bool) -> None:
    """Raise FileExistsError if `out` contains a run and resume is not set, or weights without a state to resume from;
    ValueError if it has a different recipe."""
    there = [name for name in (LAST, LOSSES, WEIGHTS, BEST) if (out / name).exists()]
    if there and not resume:
        raise FileExistsError(f"{out} already contains a run ({', '.join(there)}), so resume it or change the folder")
    if not resume:
        return
    if not (out / LAST).exists():
        weights = [name for name in there if name in (WEIGHTS, BEST)]
        if weights:
            raise FileExistsError(
                f"{out} has no {LAST} to resume from, and a new run would replace its {' and '.join(weights)}, so "
                "change the folder"
            )
        warnings.warn(f"{out} has no {LAST}, so the run starts from its first step", RuntimeWarning, stacklevel=3)
        return
    if not (out / RECIPE).exists():
        return
    before, now = Recipe.load(str(out / RECIPE)).to_dict(), recipe.to_dict()
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if before[name] != now[name]]
    refused = [text for text in changed if text.split()[0] not in CHANGEABLE]
    if refused:
        raise ValueError(
            f"{out} cannot be resumed with a different recipe ({', '.join(refused)}): only {', '.join(CHANGEABLE)} "
            f"may change. To train differently, start a new run from its weights: initial={out / WEIGHTS}"
        )


def fingerprint(recipe: Recipe, mixture: Mixture, data: Path) -> str:
    """Return the number of images to train on, and a hash of their names below `data`, wherever that lies now.

    A sample is a function of its index and of this list: with one more image, nearly every sample differs.
    """
    lines = []
    # data may be a list or an LMDB itself, which the names lie beside
    home = (data.parent if data.is_file() or is_lmdb(data) else data).absolute()
    for number, (source, part) in enumerate(zip(recipe.sources, mixture.parts, strict=True)):
        elsewhere = Path(source.path).is_absolute()
        for entry in (part.pool.entries[i] for i in part.used()):
            path = Path(entry.name).absolute()
            place = path if elsewhere or not path.is_relative_to(home) else path.relative_to(home)
            lines.append(f"{number} {entry.category} {place.as_posix()}")
    return (
        f"{len(lines)} images, {hashlib.sha256(chr(10).join(lines).encode(errors='surrogateescape')).hexdigest()[:16]}"
    )


def check_data(out: Path, saved: str | None, now: str) -> None:
    """Raise ValueError if images were added, removed or renamed since the state to resume from was saved."""
    if saved is not None and saved != now:  # None: a new run
        before, after = (text.partition(",")[0] for text in (saved, now))
        counts = f"{before} then, {after} now" if before != after else f"{after}, with other names"
        raise ValueError(
            f"{out} cannot be resumed with other data ({counts}): further samples would change, and held-out "
            f"images would be trained on. To train on these, start a new run from its weights: initial={out / WEIGHTS}"
        )


def resumed(last: Path, net: Network) -> tuple[int, str]:
    """Return the step at which a run was saved, and the fingerprint of its data; raise ValueError if the file is no
    such state or of another network."""
    try:
        state = torch.load(last, weights_only=True, map_location="cpu", mmap=True)
        step, weights, data = state["global_step"], state["state_dict"], state[DATA]
    except (
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{last} cannot be resumed from ({reason}), so start again in a different folder") from None
    saved = {name: value.shape for name, value in weights.items() if name.startswith("net.")}
    if saved != {f"net.{name}": value.shape for name, value in net.state_dict().items()}:
        raise ValueError(f"{last} has a different network from the recipe's, so resume with the recipe of that run")
    return step, data


def factors_of(net: Network, recipe: Recipe) -> tuple[str, ...]:
    """Return the factors that label the data: the network's, or all that can be made for ResFlow, which has none."""
    if not isinstance(net, F2DNet):
        return (*FACTORS, "noise", "blur", "jpeg")
    if net.config.factors != FACTORS and recipe.losses.gate_prior:
        raise ValueError(
            f"losses.gate_prior must be 0 for a network with factors {', '.join(net.config.factors)}: the prior is "
            f"only defined for {', '.join(FACTORS)}"
        )
    return net.config.factors


def check_outside(out: Path, data: Path, recipe: Recipe, mixture: Mixture) -> None:
    """Raise ValueError for a run inside a folder of photographs, to which its own samples would belong on resuming."""
    place = out.resolve()
    for source, part in zip(recipe.sources, mixture.parts, strict=True):
        folder = (data / source.path).resolve()
        read = place.is_relative_to(folder) and not any(map(is_hidden, place.relative_to(folder).parts))
        if read and part.pool.synthesised:
            raise ValueError(f"{out} must lie outside {folder}, because its samples would be read as photographs")


def check_validation(net: Network, recipe: Recipe) -> None:
    """Raise ValueError for a number of steps that the network cannot take: the first validation would end the run."""
    try:
        sampling(net.transport, recipe.validation_steps)
    except ValueError as error:
        raise ValueError(f"validation_steps: {error}") from None


def check_categories(recipe: Recipe, mixture: Mixture) -> None:
    """Raise ValueError for a weight of a category that no source has."""
    known = sorted({name for part in mixture.parts for name in part.frequencies})
    unknown = sorted(set(recipe.losses.categories) - set(known))
    if unknown:
        raise ValueError(f"losses.categories must be among those of the sources ({', '.join(known)}), got {unknown[0]}")


def check_dilated(net: Network) -> None:
    """Raise ValueError for a convolution whose bfloat16 gradient PyTorch computes wrongly on a CPU.

    oneDNN's gradient of a dilated kernel writes past its memory for 17 or more channels that are not a multiple of 16
    (PyTorch 2.13: NaN, or a crash).
    """
    for name, layer in net.named_modules():
        if not isinstance(layer, torch.nn.Conv2d) or max(layer.dilation) == 1:
            continue
        below, rest = divmod(layer.in_channels, 16)
        if below and rest:
            raise ValueError(
                f"{name} is a dilated convolution of {layer.in_channels} channels, whose bf16 gradient PyTorch "
                f"computes wrongly on a CPU: use a width of {16 * below} or {16 * below + 16}, or precision 32-true"
            )
