"""The evaluation script: its oracle, its table."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from bench import cbsd68
from bench.colour_oracle import affine_colour_oracle
from f2d.data.pairs import find_pairs
from f2d.degradation import CATEGORIES
from tests.cli.conftest import smooth_pixels


def write(path, picture=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth_pixels(16, 24) if picture is None else picture).save(path)


def test_every_pair_of_the_research_data_has_one_size(shared):
    folders = sorted((shared / "data" / "paired").iterdir())
    pairs = [pair for folder in folders for pair in find_pairs(folder, folder.name)]
    assert len(pairs) == 4 + 4 + 6 + 3 + 4 + 2  # DATA: the counts of its table
    for pair in pairs:
        with Image.open(pair.degraded) as degraded, Image.open(pair.clean) as clean:
            assert degraded.size == clean.size


def test_oracle_undoes_an_affine_colour_map():
    truth = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    mixing = torch.tensor([[0.3, 0.1, 0.0], [0.05, 0.4, 0.1], [0.0, 0.1, 0.35]])
    image = torch.einsum("cd,bdhw->bchw", mixing, truth) + 0.2
    torch.testing.assert_close(affine_colour_oracle(image, truth), truth, atol=1e-5, rtol=0)


def test_oracle_is_the_least_squares_solution():
    g = torch.Generator().manual_seed(1)
    image, truth = torch.rand(1, 3, 8, 9, generator=g), torch.rand(1, 3, 8, 9, generator=g) * 0.4 + 0.3
    columns = np.c_[image[0].reshape(3, -1).T.double().numpy(), np.ones(72)]
    expected = columns @ np.linalg.lstsq(columns, truth[0].reshape(3, -1).T.double().numpy(), rcond=None)[0]
    np.testing.assert_allclose(affine_colour_oracle(image, truth)[0].reshape(3, -1).T, expected, atol=1e-6)


def test_oracle_of_a_black_image_is_the_mean_colour():
    truth = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = truth.mean((2, 3), keepdim=True).expand_as(truth)
    torch.testing.assert_close(affine_colour_oracle(torch.zeros_like(truth), truth), expected)


def test_table_and_record(model, tmp_path, capsys):
    for name, size in (("a", (32, 48)), ("b", (48, 32)), ("c", (32, 48))):
        write(tmp_path / "clean" / f"{name}.png", smooth_pixels(*size))
    write(tmp_path / "pairs" / "input" / "x_1.png", smooth_pixels(20, 20) // 2)
    write(tmp_path / "pairs" / "gt" / "x.png", smooth_pixels(20, 20) // 2)
    arguments = [
        "--clean",
        tmp_path / "clean",
        "--paired",
        tmp_path / "pairs",
        "--model",
        model,
        "-o",
        tmp_path / "r" / "out",
    ]
    cbsd68.main([str(argument) for argument in arguments])
    record = json.loads((tmp_path / "r" / "out.json").read_text())
    rows = {row["name"]: row for row in record["composites"]}
    assert set(CATEGORIES) < set(rows) and all(rows[name]["images"] == 3 for name in CATEGORIES)
    mean = sum(rows[name]["before"] for name in CATEGORIES) / 11
    assert rows["**mean of all**"]["before"] == pytest.approx(mean)
    assert all(rows[name]["oracle"] >= rows[name]["before"] - 0.05 for name in CATEGORIES)
    assert record["pairs"][0]["before"] == float("inf") and record["environment"]["torch"] == torch.__version__
    assert "| low_haze_rain | 3 |" in (tmp_path / "r" / "out.md").read_text()
    assert "| pairs | 1 |" in capsys.readouterr().out


def test_images_do_not_depend_on_the_batch(model, tmp_path):
    from f2d.engine.restorer import Restorer

    clean = [torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    restorer = Restorer.load(model, precision="float32")
    one = list(cbsd68.composites(restorer, clean, 1, seed=0, sampler="mean"))
    three = list(cbsd68.composites(restorer, clean, 3, seed=0, sampler="mean"))
    for a, b in zip(one, three, strict=True):
        assert a[:2] == b[:2] and a[2:] == pytest.approx(b[2:], abs=0.01)
