"""Find measures by name, those of conventions and additional ones, and the reason why one is unavailable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from f2d.metrics import learned
from f2d.metrics.batch import eight_bits, sharpness
from f2d.metrics.colour import AFFINE_PSNR
from f2d.metrics.conventions import CONVENTIONS
from f2d.metrics.fidelity import Fidelity
from f2d.metrics.measure import About, FunctionMeasure, Measure, SetMeasure
from f2d.metrics.niqe import NIQE
from f2d.metrics.shift_tolerant_lpips import st_lpips
from f2d.metrics.variation import CHANGE, SPREAD

# less than 1 is blur, more than 1 is noise
SHARPNESS = FunctionMeasure(
    About("sharpness", "Sharpness", ""), lambda x, y: sharpness(eight_bits(x)[None], eight_bits(y)[None]), smallest=2
)


class _Learned(NamedTuple):
    """make: creates the measure on a device. packages: what pip installs for it."""

    make: Callable[[torch.device], Any]
    packages: str


_PLAIN: dict[str, Measure] = {
    "mae": Fidelity("mae"),
    "sharpness": SHARPNESS,
    "niqe": NIQE,
    "affine-psnr": AFFINE_PSNR,
}
_LEARNED = {
    "lpips": _Learned(learned.lpips, "torchmetrics torchvision"),
    "dists": _Learned(learned.dists, "'torchmetrics>=1.7' torchvision"),
    "musiq": _Learned(learned.musiq, "pyiqa"),
    "clip-iqa": _Learned(learned.clip_iqa, "pyiqa"),
}
_SETS = {"fid": _Learned(learned.Fid, "torchmetrics torch-fidelity")}
PICTURES = (*_PLAIN, "st-lpips", *_LEARNED)  # one number per image
SETS = (*_SETS,)  # one number per set of images
OF_METHODS = {"change": CHANGE, "spread": SPREAD}  # need a method: see f2d.evaluation.run
NAMES = (*PICTURES, *OF_METHODS, *SETS)

_WEIGHTS_WANTED = (
    "its weights are missing: pass alex_shift_tolerant.pth, which is part of the wheel of stlpips-pytorch "
    "(pip download --no-deps stlpips-pytorch, then unzip)"
)

Absent = dict[str, str]


def find(
    conventions: list[str],
    extra: list[str],
    *,
    stlpips_weights: Path | None = None,
    device: str | torch.device = "cpu",
) -> tuple[list[Measure], Absent]:
    """Return the measures of single images, each once, and for each unavailable name in `extra` the reason.

    conventions: names in `CONVENTIONS`. extra: names in `NAMES`, of which those of sets (see `find_sets`) and
    `OF_METHODS` are skipped. stlpips_weights: see `st_lpips`. device: where networks run. Raises ValueError for unknown
    names and wrong weights.
    """
    _check("convention", conventions, tuple(CONVENTIONS))
    _check("measure", extra, NAMES)
    found: dict[str, Measure] = {}
    absent: Absent = {}
    for known in (measure for name in conventions for measure in CONVENTIONS[name].measures):
        found.setdefault(known.about.key, known)
    for name in dict.fromkeys(extra):
        measure: Measure | None = None
        if name in _PLAIN:
            measure = _PLAIN[name]
        elif name in _LEARNED:
            measure = _make(name, _LEARNED[name], device, absent)
        elif name == "st-lpips" and stlpips_weights is not None:
            measure = st_lpips(stlpips_weights, device)
        elif name == "st-lpips":
            absent[name] = _WEIGHTS_WANTED
        if measure is not None:
            found.setdefault(measure.about.key, measure)
    return list(found.values()), absent


def find_sets(extra: list[str], *, device: str | torch.device = "cpu") -> tuple[list[SetMeasure], Absent]:
    """Return the measures of whole sets that `extra` names, as `find` does for single images."""
    _check("measure", extra, NAMES)
    absent: Absent = {}
    made = [_make(name, _SETS[name], device, absent) for name in dict.fromkeys(extra) if name in _SETS]
    return [measure for measure in made if measure is not None], absent


def _make(name: str, which: _Learned, device: str | torch.device, absent: Absent) -> Any:
    """Create a `Measure` or `SetMeasure`; if that fails, put the reason into `absent` and return None."""
    try:
        return which.make(torch.device(device))
    except ImportError as error:
        absent[name] = f"a package is not installed ({_first_line(error)}): pip install {which.packages}"
    # RuntimeError: an interrupted download, or a torchvision that does not fit this torch
    except (OSError, RuntimeError) as error:
        absent[name] = (
            f"its network could not be loaded ({_first_line(error)}), so run it once with internet access, which "
            "downloads the weights, or copy ~/.cache from a machine that has them"
        )
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check(what: str, names: list[str], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}")
