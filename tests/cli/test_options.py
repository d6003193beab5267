"""Options and models that `f2d restore` refuses: one line that says what would be right, and nothing written."""

from pathlib import Path
from typing import get_args

import pytest

from f2d import F2DNet, checkpoints
from f2d.cli.options import Precision, Sampler
from f2d.cli.quantities import size_in_bytes
from f2d.engine.execution import PRECISIONS, choose_execution
from f2d.transport import SAMPLERS, ResFlow
from tests.cli.conftest import assert_one_line_error


def test_unknown_preset_lists_the_known(f2d, photo, tmp_path):
    result = f2d("restore", photo, "-o", tmp_path / "out.png", "--model", "f2d-nope")
    assert_one_line_error(result, 2, "f2d-nope", *checkpoints.shipped())


def test_damaged_checkpoint(f2d, photo, tmp_path, model):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((Path(model) / name).read_bytes()[:64])
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o.png", "--model", folder), 2, "config.json")
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        (("--steps", "0"), ("--steps",)),
        (("--steps", "many"), ("--steps",)),
        (("--seed", str(2**64)), ("--seed",)),
        (("--sampler", "DDIM"), ("--sampler", "DDIM", "mean")),
        (("--seed", "-1"), ("--seed",)),
        (("--precision", "int4"), ("--precision", "int4", "bf16")),
        (("--device", "abacus"), ("abacus",)),
        (("--device", "cpu:7"), ("cpu:7", "one CPU")),
        (("--strenght", "1"), ("--strenght",)),
    ],
)
def test_bad_option_values(f2d, model, photo, tmp_path, options, words):
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, *options), 2, *words)
    assert not (tmp_path / "o.png").exists()


def test_errors_are_worded_for_people(f2d, model, photo, tmp_path):
    """Some versions of typer let pydantic's "Value error, " through."""
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, "--sampler", "DDIM")
    assert "value error" not in result.stderr.replace("Invalid value", "").lower()


@pytest.mark.parametrize("options", [("--steps", "101"), ("--steps", "2", "--sampler", "mean")])
def test_steps_that_cannot_be_taken_load_no_weights(f2d, model, photo, tmp_path, monkeypatch, options):
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    result = f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, *options)
    assert_one_line_error(result, 2, "steps", options[1], "1")


def test_options_name_what_the_package_has():
    assert get_args(Sampler) == SAMPLERS + ResFlow.samplers
    assert get_args(Precision) == PRECISIONS


@pytest.mark.parametrize(
    "options, words",
    [
        (("--format", "gif"), ("gif", "png")),
        (("--quality", "0"), ("--quality",)),
        (("--quality", "80", "--format", "png"), ("--quality", "png")),
        (("--format", "jpg"), ("o.png", "jpg")),
        (("--samples", "1", "--steps", "4"), ("--samples", "at least 2")),
        (("--samples", "4"), ("--samples", "--steps above 1")),
        (("--only", "rain,fog"), ("fog", "rain")),
        (("--only", ""), ("--only", "rain,haze")),
        (("--strength", "low"), ("--strength low", "low=0.5")),
        (("--strength", "low=much"), ("--strength low=much",)),
        (("--strength", "low=-1"), ("low", "-1")),
        (("--strength", "low=nan"), ("low", "nan")),
        (("--strength", "fog=1"), ("fog", "rain")),
        (("--strength", "low=1", "--strength", "low=2"), ("low", "twice")),
        (("--max-memory", "4 elephants"), ("--max-memory", "4G")),
    ],
)
def test_wrong_options_load_no_weights(f2d, model, photo, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(F2DNet, "from_pretrained", lambda *_: pytest.fail("a model was loaded"))
    assert_one_line_error(f2d("restore", photo, "-o", tmp_path / "o.png", "--model", model, *options), 2, *words)
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("text, value", [("4G", 4 * 2**30), ("512m", 2**29), ("1.5GiB", 3 * 2**29), ("800000", 800000)])
def test_sizes_in_bytes(text, value):
    assert size_in_bytes(text) == value


def test_without_a_command_the_help_is_all_that_is_printed(f2d):
    result = f2d()
    assert result.exit_code == 2 and "Usage" in result.output and "error:" not in result.output


@pytest.mark.parametrize(("threads", "words"), [(1, "cpu, 1 thread,"), (2, "cpu, 2 threads,")])
def test_threads_are_counted_in_words(monkeypatch, threads, words):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    assert str(choose_execution("cpu", "float32")).startswith(words)
