"""The commands with a ResFlow checkpoint: what they make of it, and what they refuse before any work."""

import json

import numpy as np
import pytest
from PIL import Image

from f2d.images import image_to_tensor
from f2d.nets.resflow import ResFlowNet
from f2d.transport.restore import restore_tensor
from tests.cli.conftest import assert_one_line_error
from tests.cli.test_info import one_line
from tests.nets.small import resflow_net


@pytest.fixture(scope="module")
def resflow(tmp_path_factory) -> str:
    """A checkpoint folder."""
    folder = tmp_path_factory.mktemp("resflow")
    resflow_net().save_pretrained(folder)
    return str(folder)


def levels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(float)


def test_restores_as_the_network_does(f2d, resflow, photo, tmp_path):
    for name, options in (("default", ()), ("same", ("--steps", "4", "--sampler", "EULER")), ("one", ("--steps", "1"))):
        options = ("--model", resflow, "--precision", "float32", *options)
        result = f2d("restore", photo, "-o", tmp_path / f"{name}.png", *options)
        assert result.exit_code == 0, result.output
    assert np.array_equal(levels(tmp_path / "default.png"), levels(tmp_path / "same.png"))
    net = ResFlowNet.from_pretrained(resflow)
    for name, steps in (("default", 4), ("one", 1)):
        expected = restore_tensor(net, image_to_tensor(photo)[None] * 2 - 1, steps=steps, seed=0)
        expected = ((expected[0].permute(1, 2, 0) + 1) * 127.5).numpy()
        assert np.abs(levels(tmp_path / f"{name}.png") - expected).max() < 0.51  # rounding to 8 bits
    assert np.abs(levels(tmp_path / "default.png") - levels(photo)).max() > 5


def test_samples(f2d, resflow, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", resflow, "--samples", "3")
    assert result.exit_code == 0, result.output
    samples = [levels(tmp_path / f"o.png_sample_{k}.png") for k in (1, 2, 3)]
    assert not np.array_equal(samples[0], samples[1])
    assert np.abs(np.mean(samples, axis=0) - levels(tmp_path / "o.png")).max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sampler", "mean"), ("got 'mean'", "euler")),
        (("--samples", "3", "--steps", "1"), ("--steps above 1",)),
        (("--save-maps",), ("--save-maps", "no factors")),
        (("--only", "rain"), ("factors", "has no factors")),
        (("--strength", "rain=0.5"), ("factors", "has no factors")),
    ],
)
def test_what_it_does_not_have_loads_no_weights(f2d, resflow, photo, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(ResFlowNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", resflow, *options)
    assert_one_line_error(result, 2, *words)
    assert not (tmp_path / "o.png").exists()


def test_the_other_has_no_euler(f2d, model, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--sampler", "euler")
    assert_one_line_error(result, 2, "got 'euler'", "MC", "mean")


def test_too_large_is_one_line(f2d, resflow, tmp_path):
    Image.new("RGB", (900, 700)).save(tmp_path / "a.png")
    options = ("--model", resflow, "--max-memory", "200M")
    result = f2d("restore", tmp_path / "a.png", "-o", tmp_path / "o.png", *options)
    assert_one_line_error(result, 1, "a.png: 900x700 does not fit into 200 MiB and needs at least", "bands")


def test_info(f2d, resflow):
    result = f2d("info", resflow, "--precision", "float32")
    assert result.exit_code == 0, result.output
    text = one_line(result.stdout)
    parameters = sum(p.numel() for p in resflow_net().parameters())
    for words in (
        "architecture ResFlow",
        "auxiliary entropy",
        f"parameters {parameters:,}",
        "4 network calls with sampler euler",
    ):
        assert words in text
    assert f"weights of {resflow}: {resflow}\n" in result.stdout


def test_finetune_and_convert_are_there(f2d, tmp_path):
    assert_one_line_error(f2d("convert", tmp_path / "no.pt", "-o", tmp_path / "o"), 2, "no.pt")
    result = f2d("finetune", "f2d-lite", "--data", tmp_path / "no", "-o", tmp_path / "o")
    assert_one_line_error(result, 2, "no such file or folder")


def test_the_evaluation_takes_it(f2d, resflow, tmp_path):
    (tmp_path / "clean").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clean" / "a.png")
    out = tmp_path / "out"
    result = f2d("eval", resflow, "--data", f"composites={tmp_path / 'clean'}", "-o", out, "--measures", "spread")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row["values"] for row in json.loads((out / "results.json").read_text())["rows"]}
    assert len(rows) == 11 + 3 + 1
    assert all(np.isfinite(row["psnr rgb 8bit"]) and float(row["spread"]) > 0 for row in rows.values())
