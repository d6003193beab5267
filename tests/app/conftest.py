"""Small models, pictures of every kind, and the server with a model that waits when it is told to."""

import threading

import numpy as np
import pytest
from PIL import Image

from f2d.app.limits import Limits
from f2d.app.work import Work
from f2d.engine.restorer import Restorer
from f2d.images import Photo, write
from tests.cli.conftest import model, smooth_pixels  # noqa: F401

SIZE = (48, 32)


@pytest.fixture(scope="session")
def restorer(model) -> Restorer:  # noqa: F811
    return Restorer.load(model, device="cpu", precision="float32")


@pytest.fixture
def work(restorer, tmp_path) -> Work:
    return Work(restorer, Limits(megapixels=1, upload=10**6), tmp_path)


def draw(folder, kind: str):
    """A file of one `kind` in `folder`, every one of another content."""
    width, height = SIZE
    rgb = smooth_pixels(height, width)
    path = folder / kind
    if kind == "deep.tiff":
        write(Photo(rgb.astype(np.uint16) * 251), path)
    elif kind == "rgba.png":
        write(Photo(rgb, rgb[..., 0]), path)
    elif kind == "cmyk.jpg":
        Image.fromarray(rgb).convert("CMYK").save(path)
    elif kind == "turned.JPEG":
        exif = Image.Exif()
        exif[274], exif[271] = 6, "Camera"
        Image.fromarray(rgb).save(path, "JPEG", exif=exif)
    elif kind == "moving.gif":
        frames = [Image.fromarray(rgb), Image.fromarray(rgb[::-1].copy())]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif kind == "grey.png":
        Image.fromarray(rgb[..., 0]).save(path)
    elif kind == "dot.png":
        Image.new("RGB", (1, 1), (90, 80, 70)).save(path)
    else:
        Image.fromarray(rgb).save(path)
    return path


KINDS = {  # and the suffix of what is given back
    "plain.png": ".png",
    "plain.jpg": ".jpg",
    "plain.webp": ".webp",
    "plain.bmp": ".bmp",
    "deep.tiff": ".tiff",
    "rgba.png": ".png",
    "cmyk.jpg": ".jpg",
    "turned.JPEG": ".JPEG",
    "moving.gif": ".gif.png",
    "plain.avif": ".avif.png",
    "plain.jfif": ".jfif",
    "plain.ppm": ".ppm.png",
    "grey.png": ".png",
    "dot.png": ".png",
}


class Held:
    """A restorer whose calls wait while `gate` is not set, and are counted."""

    def __init__(self, restorer: Restorer):
        self._restorer, self.gate, self.calls, self.started = restorer, threading.Event(), 0, threading.Event()
        self.gate.set()

    def __getattr__(self, name: str):
        return getattr(self._restorer, name)

    def __call__(self, *args, **options):
        self.calls += 1
        self.started.set()
        assert self.gate.wait(120)
        return self._restorer(*args, **options)
