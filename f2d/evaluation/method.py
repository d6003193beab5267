"""The evaluated method: a model, or a folder of images restored by another method."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from f2d import checkpoints
from f2d.data.pictures import find_images
from f2d.engine.restorer import Restorer
from f2d.evaluation.case import Case
from f2d.evaluation.folder import Settings
from f2d.images import image_to_tensor


class Answer(NamedTuple):
    """A restoration. image: float32 [3, H, W], not clamped. seconds: time of the method alone.

    factors, gates [K], maps [K, H, W] and presence [K] are those of `f2d.engine.restorer.Restored`; K = 0 for methods
    without factors. spatial says whether the method computes maps (False: they are ones, since it routes whole images).
    another is the restoration with the next seed, if requested.
    """

    image: Tensor
    seconds: float
    factors: tuple[str, ...] = ()
    gates: Tensor | None = None
    maps: Tensor | None = None
    presence: Tensor | None = None
    spatial: bool = False
    another: Tensor | None = None


class Method(Protocol):
    """A method that restores images."""

    def restore(self, case: Case, degraded: Tensor) -> Answer:
        """Restore an image, float32 [3, H, W] in [0, 1]; raise ValueError if there is no result for it."""
        ...


class ModelMethod:
    """A network of this package with its options: steps, sampler, seed. With twice, every image is also restored with
    the next seed.
    """

    def __init__(self, restorer: Restorer, options: dict, *, twice: bool = False):
        self._restorer, self._options, self._twice = restorer, options, twice

    def restore(self, case: Case, degraded: Tensor) -> Answer:
        result = self._restorer(degraded, **self._options)
        spatial = getattr(self._restorer.config, "spatial_maps", False)
        another = None
        if self._twice:
            another = self._restorer(degraded, **{**self._options, "seed": (self._options["seed"] + 1) % 2**64}).image
        explained = (result.factors, result.gates, result.maps, result.presence)
        return Answer(result.image, result.seconds, *explained, spatial, another)


class OutputsMethod:
    """A folder of restored images: written by `f2d eval` (``category/name``), by `f2d restore`, or by other code.

    The image of a case has the name ``category/place``, that of its degraded file, with or without that file's folder,
    or that of its clean file, tried in this order. Suffixes may differ. A name that fits several of the dataset's
    cases is not used. Last come the names with the degraded file's suffix: `f2d restore` writes 1.gif.png for 1.gif,
    and both 1.jpg and 1.png for two such files.
    """

    def __init__(self, folder: Path, cases: Sequence[Case]):
        self.folder = folder
        self._files: dict[str, list[Path]] = defaultdict(list)
        paths = {path.relative_to(folder): path for path in find_images(folder)}
        for place, path in paths.items():
            self._files[place.with_suffix("").as_posix()].append(path)
        for place, path in paths.items():
            self._files.setdefault(place.as_posix(), [path])
        self._claims = Counter(name for case in cases for name in _names(case))
        if not self._files or (cases and not any(map(self.files, cases))):
            presets = ", ".join(checkpoints.shipped())
            example = f", such as {' or '.join(self._places(cases[0]))}" if cases else ""
            raise ValueError(
                f"{folder} is neither a preset with shipped weights ({presets}) nor a folder with a "
                f"checkpoint or with restored images of this data{example}"
            )

    def files(self, case: Case) -> tuple[Path, ...]:
        """Return the files of a case: one, none, or several that differ in their suffixes."""
        places = self._places(case)
        places += [place + case.degraded.suffix for place in places] if case.degraded else []
        return tuple(next((self._files[place] for place in places if place in self._files), ()))

    def _places(self, case: Case) -> list[str]:
        return [name for name in _names(case) if name == case.name or self._claims[name] == 1]

    def restore(self, case: Case, degraded: Tensor) -> Answer:
        found = self.files(case)
        if not found:
            looked = ", ".join(self._places(case))
            raise ValueError(f"{self.folder} has no image for {case.name} (looked for {looked})")
        if len(found) > 1:
            raise ValueError(f"{' and '.join(map(str, found))} could both be the image for {case.name}")
        image = image_to_tensor(found[0])
        if image.shape != degraded.shape:
            given, wanted = (f"{picture.shape[2]}x{picture.shape[1]}" for picture in (image, degraded))
            raise ValueError(f"{found[0]} must have the size of its input, {wanted}, got {given}")
        return Answer(image, 0.0)


def _names(case: Case) -> list[str]:
    """Return the names that a case's image may have, best first."""
    files = [path for path in (case.degraded, case.clean) if path is not None]
    names = [case.name, *(f"{case.category}/{path.stem}" for path in files), case.name.partition("/")[2]]
    names += [f"{path.parent.name}/{path.stem}" for path in files[:1]] + [path.stem for path in files]
    return list(dict.fromkeys(names))


def digest(model: str) -> str:
    """Return the SHA-256 of a checkpoint's weights."""
    found = hashlib.sha256()
    with open(checkpoints.find(model) / checkpoints.MODEL, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def load_evaluated(settings: Settings, device: str = "auto") -> Restorer:
    """Load the model of an evaluation in its precision; raise ValueError or OSError if it is missing or has changed."""
    if settings.model is None:
        raise ValueError("the images are outputs of another program, so there is no model to run")
    if digest(settings.model) != settings.digest:
        raise ValueError(f"the weights in {settings.model} are no longer those that were evaluated")
    return Restorer.load(settings.model, device=device, precision=settings.options["precision"])
