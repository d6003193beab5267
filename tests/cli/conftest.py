"""A tiny model and a few pictures, enough to run every command in well under a second."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from f2d.cli.commands import app
from f2d.engine import restorer
from f2d.nets import F2DNet
from tests.nets.small import TINY


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """A checkpoint folder; its weights are random, so that a restoration changes the picture."""
    torch.manual_seed(3)
    net = F2DNet(TINY)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("model")
    net.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def f2d():
    """f2d("restore", path, ...) -> result with exit_code, stdout and stderr."""

    def run(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def memory_ends(monkeypatch):
    """memory_ends(width): restorations of images that wide ask PyTorch for more memory than any machine has."""

    def end(width: int) -> None:
        restore = restorer.restore_tensor

        def limited(predictor, y, **options):
            return torch.empty(2**50) if y.shape[-1] == width else restore(predictor, y, **options)

        monkeypatch.setattr(restorer, "restore_tensor", limited)

    return end


def smooth_pixels(height: int, width: int) -> np.ndarray:
    """[H, W, 3] uint8, different everywhere, so that a flip or a swap of channels shows."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / max(1, width - 1), 255 * y / max(1, height - 1)
    return np.stack([red, green, 255 - (red + green) / 2], axis=-1).round().astype(np.uint8)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A 33x47 PNG."""
    path = tmp_path / "photo.png"
    Image.fromarray(smooth_pixels(47, 33)).save(path)
    return path


def assert_one_line_error(result, code: int, *words: str) -> None:
    """Exit code, a single line on stderr that starts with error: and has the words, and no traceback."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in result.output
