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
    """image: float32 [3, H, W], not clamped. seconds: of the method alone. factors, gates [K], maps [K, H, W],
    presence [K]: as `f2d.engine.restorer.Restored` has them, K = 0 for methods without factors. spatial: whether the
    maps are the method's own, or ones because it routes whole images. another: the restoration by the next seed, where
    it was asked for."""

    image: Tensor
    seconds: float
    factors: tuple[str, ...] = ()
    gates: Tensor | None = None
    maps: Tensor | None = None
    presence: Tensor | None = None
    spatial: bool = False
    another: Tensor | None = None


class Method(Protocol):
    """A way from a degraded picture to a restored one."""

    def restore(self, case: Case, degraded: Tensor) -> Answer:
        """degraded: float32 [3, H, W] in [0, 1]. ValueError where there is no answer."""
        ...


class ModelMethod:
    """A network of this package with the options of its restorations: steps, sampler, seed. twice: whether it also
    restores every picture by the next seed."""

    def __init__(self, restorer: Restorer, options: dict, *, twice: bool = False):
        self._restorer, self._options, self._twice = restorer, options, twice

    def restore(self, case: Case, degraded: Tensor) -> Answer:
        result = self._restorer(degraded, **self._options)
        spatial = getattr(self._restorer.config, "spatial_maps", False)
        another = None
        if self._twice:
            another = self._restorer(degraded, **{**self._options, "seed": self._options["seed"] + 1}).image
        explained = (result.factors, result.gates, result.maps, result.presence)
        return Answer(result.image, result.seconds, *explained, spatial, another)


class OutputsMethod:
    """A folder of restored pictures: of `f2d eval` (``category/name``), of `f2d restore`, or of anyone's code.

    The picture of a case is the one named ``category/place`` below the folder, else as its degraded file is, with or
    without that file's folder, else as its clean file is; a name that several cases could have is none's, and suffixes
    may differ.
    """

    def __init__(self, folder: Path, cases: Sequence[Case]):
        self.folder = folder
        self._files: dict[str, list[Path]] = defaultdict(list)
        for path in find_images(folder):
            self._files[path.relative_to(folder).with_suffix("").as_posix()].append(path)
        if not self._files:
            presets = ", ".join(checkpoints.shipped())
            raise ValueError(
                f"{folder} is no preset ({presets}), and holds neither a checkpoint nor pictures that a method restored"
            )
        self._claims = Counter(name for case in cases for name in _names(case))

    def files(self, case: Case) -> tuple[Path, ...]:
        """Return the files of a case: one, none, or several that differ in their suffixes."""
        return tuple(next((self._files[name] for name in self._places(case) if name in self._files), ()))

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
    """Places that a case's picture may have, best first."""
    files = [path for path in (case.degraded, case.clean) if path is not None]
    names = [case.name, *(f"{case.category}/{path.stem}" for path in files), case.name.partition("/")[2]]
    names += [f"{path.parent.name}/{path.stem}" for path in files[:1]] + [path.stem for path in files]
    return list(dict.fromkeys(names))


def digest(model: str) -> str:
    """SHA-256 of a checkpoint's weights."""
    found = hashlib.sha256()
    with open(checkpoints.find(model) / checkpoints.MODEL, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def load_evaluated(settings: Settings, device: str = "auto") -> Restorer:
    """The model of an evaluation, in its precision. ValueError, OSError where there is none, or no longer that one."""
    if settings.model is None:
        raise ValueError("the images are outputs of another program, so there is no model to run")
    if digest(settings.model) != settings.digest:
        raise ValueError(f"the weights in {settings.model} are no longer those that were evaluated")
    return Restorer.load(settings.model, device=device, precision=settings.options["precision"])
