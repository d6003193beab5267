"""Restore encoded images or arrays inside Ray Data pipelines; needs `ray` only where the pipeline itself is built."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from f2d.engine.restorer import Restorer
from f2d.images import ImageError, check_holds, read
from f2d.images.formats import FORMATS, format_of
from f2d.images.writing import encode

Columns = dict[str, Any]


class RestoreImages:
    """``dataset.map_batches(RestoreImages, compute=ActorPoolStrategy(size=N))``: one `Restorer` per actor.

        ray.data.read_binary_files(folder, include_paths=True).map_batches(
            RestoreImages,
            fn_constructor_kwargs={"model": "f2d-lite"},
            compute=ray.data.ActorPoolStrategy(size=4),
            num_gpus=0.5,
            batch_size=8,
        )

    Batches are columns in Ray's format "numpy". Each row has either `bytes`, an encoded image with an optional `path`
    whose suffix names the output format (PNG without one), or `image`, an array [H,W,3] as `Restorer` takes it. The
    same columns come back restored, encoded with metadata, transparency and bit depth, together with `error` (the
    reason, "" if there is none) and `seconds` (of the model). A row that cannot be restored keeps its input and has its
    error; it does not stop the job. Other columns are kept.

    model, device, precision: as in `Restorer.load`. seed, and options such as steps, sampler, strength and max_memory:
    as in a call of `Restorer`. format: suffix of the output without a dot. quality: 1 to 100, JPEG and WebP. Ray sets
    the devices and the number of CPU threads that an actor sees. Results are bit-identical to those of `f2d restore`.
    Raises the errors of `Restorer.load` when the actor starts, ValueError for a batch without `bytes` or `image`.
    """

    def __init__(
        self,
        model: str = "f2d-lite",
        *,
        device: str = "auto",
        precision: str = "auto",
        seed: int = 0,
        format: str | None = None,
        quality: int | None = None,
        **options: Any,
    ):
        if format is not None:
            format_of(Path(f"image.{format}"))
        self._restorer = Restorer.load(model, device=device, precision=precision)
        self._format, self._quality = format, quality
        self._options = {"seed": seed, **options}

    def __call__(self, batch: Columns) -> Columns:
        """Restore one batch of columns; see the class."""
        name = next((name for name in ("bytes", "image") if name in batch), None)
        if name is None:
            raise ValueError(f"RestoreImages: rows need a column 'bytes' or 'image', got {', '.join(batch)}")
        paths = batch.get("path", [""] * len(batch[name]))
        rows = [self._row(value, str(path)) for value, path in zip(batch[name], paths)]
        values, errors, seconds = zip(*rows) if rows else ((), (), ())
        column = np.empty(len(rows), dtype=object)
        column[:] = values
        return {**batch, name: column, "error": np.array(errors, dtype=object), "seconds": np.array(seconds, float)}

    def restored(self, data: bytes, path: str = "") -> tuple[bytes, float]:
        """Return the restored image, encoded in the chosen format or that of `path`, and the model's seconds.

        Raises ImageError, one line that begins with `path`, unless the bytes are a readable image.
        """
        name = Path(path or "image")
        with tempfile.TemporaryDirectory() as folder:  # decoders of 16 bits read files
            file = Path(folder) / "image"
            file.write_bytes(data)
            try:
                photo = read(file)
            except ImageError as error:
                raise ImageError(str(error).replace(str(file), path or "image", 1)) from None
        suffix = f".{self._format}" if self._format else name.suffix.lower()
        target = name.with_suffix(suffix if suffix in FORMATS else ".png")
        check_holds(photo, target)
        result = self._restorer(photo.tensor()[None], **self._options)
        encoded, _ = encode(photo.replaced(result.image[0]), target, quality=self._quality)
        return encoded, result.seconds

    def _row(self, value: Any, path: str) -> tuple[Any, str, float]:
        try:
            if isinstance(value, np.ndarray):
                result = self._restorer(value, **self._options)
                return result.image, "", result.seconds
            data, seconds = self.restored(value, path)
            return data, "", seconds
        except Exception as error:  # whatever one image causes must not end a job of millions
            return value, reason(error), 0.0


def reason(error: Exception) -> str:
    """Return one line that says why an image could not be restored, with the type of an unexpected error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ImageError) else f"{type(error).__name__}: {text}"
