"""Process a request: restore an uploaded file, and prepare everything that the page shows."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Semaphore
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from f2d.app import shown
from f2d.app.disk import used
from f2d.app.limits import Limits
from f2d.engine import BudgetError
from f2d.engine.execution import DoesNotFitError
from f2d.engine.restorer import Restored, Restorer
from f2d.images import ImageError, Photo, check_holds, from_picture, read, write
from f2d.images.formats import FORMATS, image_name
from f2d.images.icc import profile_if_rgb
from f2d.images.metadata import Metadata

BROWSERS_SHOW = {"JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF"}


@dataclass(frozen=True)
class Options:
    """The visitor's options, as in `f2d.engine.restorer.Restorer.__call__`; None means the model's default."""

    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    strength: dict[str, float] = field(default_factory=dict)


class Factor(NamedTuple):
    """One factor in one picture. overlay: its map over the picture, a file. mean: of the map. gate, presence: as in
    `Restored`; all in [0, 1]."""

    name: str
    overlay: Path
    mean: float
    gate: float
    presence: float


class Done(NamedTuple):
    """before, after: files for the screen, of `size` (width, height). download: the whole picture, in the format named
    `format`. line: a one-line description of the restoration."""

    before: Path
    after: Path
    size: tuple[int, int]
    download: Path
    format: str
    line: str
    factors: tuple[Factor, ...]


class Work:
    """Restorations of files through one restorer; any number of threads may call it.

    Pictures are read and written below `folder` only, each request's in a place that cannot be guessed. Errors in a
    file or in the options raise an ImageError or a ValueError of one line, with the file's own name and no path of the
    server. A path that is not a file below `folder` raises FileNotFoundError, as visitors can name any path.
    """

    def __init__(self, restorer: Restorer, limits: Limits, folder: Path):
        self.restorer, self.limits, self.folder = restorer, limits, folder.resolve()
        self._memory = limits.share(restorer.execution.device)
        self._turns = Semaphore(limits.together)

    def inside(self, path: Path) -> Path:
        """Return `path`, a file below `folder`; raise FileNotFoundError for others, also for links that lead out."""
        try:
            if path.resolve().is_relative_to(self.folder) and path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # names too long, with a null byte, links in a circle
            pass
        raise FileNotFoundError("the file does not belong to this server")

    def preview(self, path: Path) -> Path | None:
        """Return a picture for the screen if browsers cannot show the file, otherwise None.

        Raises ImageError for a file that cannot be restored, as far as its header tells.
        """
        self.check_room(path)
        with _named(path):
            if self.limits.check(path) in BROWSERS_SHOW:
                return None
            photo = read(path)
        return self._screen(shown.fitted(photo.picture()), self.place(), "preview", photo.metadata.icc)

    def restore(self, path: Path, options: Options) -> Done:
        """Restore `path`, to the same pixels as `f2d restore` and `f2d.load`."""
        self.check_room(path)
        with _named(path):
            self.limits.check(path)
            photo = read(path)
            result = self.call(photo.tensor(), options)
        restored, place = photo.replaced(result.image), self.place()
        download = _download(place, path, photo)
        with _named(download):
            write(restored, download)
        before, after = shown.fitted(photo.picture()), shown.fitted(restored.picture())
        factors = tuple(
            Factor(
                name,
                self._screen(shown.overlay(before, values.numpy()), place, f"map_{name}"),
                *(float(number) for number in (values.mean(), gate, presence)),
            )
            for name, values, gate, presence in zip(result.factors, result.maps, result.gates, result.presence)
        )
        return Done(
            self._screen(before, place, "before", photo.metadata.icc),
            self._screen(after, place, "after", photo.metadata.icc),
            before.size,
            download,
            FORMATS[download.suffix.lower()].name,
            self._line(photo, restored, result),
            factors,
        )

    def check_room(self, path: Path) -> None:
        """Raise FileNotFoundError as `inside`; raise ImageError, with the name of `path`, if the folder is full."""
        self.inside(path)
        if used(self.folder) > self.limits.disk:
            raise ImageError(f"{path.name}: the server has no space for another image just now, so try again later")

    def call(self, image: Tensor, options: Options, **more: Any) -> Restored:
        """Restore an image [3, H, W] or [1, 3, H, W], at most `limits.together` at one time."""
        size = f"{image.shape[-1]} × {image.shape[-2]} pixels"
        try:
            with self._turns:
                return self.restorer(
                    image,
                    seed=options.seed,
                    max_memory=self._memory,
                    steps=options.steps,
                    sampler=options.sampler,
                    strength=options.strength or None,
                    **more,
                )
        except DoesNotFitError:
            raise ImageError(
                f"{size} did not fit into memory at the moment, so try again, or make it smaller"
            ) from None
        except BudgetError:
            raise ImageError(f"{size} need more memory than this page has for one image, so make it smaller") from None

    def _line(self, photo: Photo, restored: Photo, result: Restored) -> str:
        change = photo.change_to(restored)
        frames = f" · the first of {photo.frames} frames" if photo.frames > 1 else ""
        return (
            f"Changed by {change.mean:.1f} grey levels of 255 on average, {change.largest:.0f} at most · "
            f"{result.seconds:.2f} s, {self.execution()} · {photo.size[0]} × {photo.size[1]}, "
            f"{photo.depth}\N{NO-BREAK SPACE}bits{frames}"
        )

    def execution(self) -> str:
        """Return the precision and the name of the device."""
        execution = self.restorer.execution
        device = "CPU" if execution.device.type == "cpu" else torch.cuda.get_device_name(execution.device)
        return f"{execution.precision} on {device}"

    def place(self) -> Path:
        """Make a folder below `folder` whose name cannot be guessed."""
        place = self.folder / secrets.token_hex(16)
        place.mkdir(mode=0o700)
        return place

    @staticmethod
    def _screen(picture: Image.Image, place: Path, name: str, profile: bytes = b"") -> Path:
        """Write a picture for the screen, with its ICC profile if that is one of RGB."""
        small = picture.width * picture.height <= shown.EXACT
        path = place / f"{name}{'.png' if small else '.jpg' if picture.mode == 'RGB' else '.webp'}"
        metadata = Metadata(icc=profile_if_rgb(profile))
        write(replace(from_picture(picture), metadata=metadata), path)
        return path


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make errors about `path` begin with the file's name in place of its path on the server."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path.name}: {str(error).removeprefix(f'{path}: ')}") from None


def _download(place: Path, path: Path, photo: Photo) -> Path:
    """Return the file to write, named as by `f2d restore`; a PNG too where a wrong suffix could not hold `photo`."""
    download = image_name(place / f"{path.stem}_restored{path.suffix}", None)
    try:
        check_holds(photo, download)
    except ImageError:
        return download.with_suffix(".png")
    return download
