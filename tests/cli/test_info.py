"""`f2d info`, `f2d --version`, and what restoration runs on."""

import shutil
import subprocess
import sys

import pytest
import torch

import f2d as package
import f2d_kernels
from f2d import checkpoints
from f2d.engine.execution import choose_execution
from f2d.nets.cost import parameter_count
from f2d.nets.models import PRESETS
from tests.cli.conftest import assert_one_line_error


@pytest.fixture
def make_long_weights(model, tmp_path, monkeypatch):
    """Shipped weights in a folder whose path is longer than a terminal is wide."""
    home = tmp_path / ("deep" * 30)
    shutil.copytree(model, home / "f2d-paper")
    monkeypatch.setattr(checkpoints, "WEIGHTS", home)
    return home


def one_line(text: str) -> str:
    """Without the frames and line breaks of tables."""
    return " ".join(text.replace("│", " ").split())


def test_version(f2d):
    result = f2d("--version")
    assert result.exit_code == 0 and result.stdout == f"f2d {package.__version__}\n"


def test_info_names_versions_backends_presets(f2d):
    result = f2d("info")
    text = one_line(result.stdout)
    assert result.exit_code == 0
    for word in (torch.__version__, *f2d_kernels.backends(), *PRESETS, "23,771,627", "multiply-adds"):
        assert word in text
    assert f"restoration runs on {choose_execution()}" in text


def test_info_of_a_model(f2d, model):
    result = f2d("info", model, "--precision", "float32")
    assert result.exit_code == 0
    text = one_line(result.stdout)
    assert "low, haze, rain, snow" in text and "SFLOW" in text and "float32 (requested)" in text
    assert f"weights of {model}: {model}\n" in result.stdout


def test_info_says_what_will_run(f2d, model):
    for precision, name in (("float32", "float32"), ("bf16", "bfloat16")):
        text = one_line(f2d("info", model, "--precision", precision).stdout)
        assert "what runs" in text and f"convolutions {name}, channels_last: parser" in text
        assert f"expert_head on {f2d_kernels.selected_backend('cpu', op='expert_head')[0]}" in text
        assert ("features to bfloat16" in text) == (precision == "bf16")


@pytest.mark.parametrize("name", PRESETS)
def test_info_of_every_preset(f2d, name):
    result = f2d("info", name)
    assert result.exit_code == 0, result.output
    text = one_line(result.stdout)
    assert f"parameters {parameter_count(PRESETS[name]):,}" in text
    field = "multipliers" if name.startswith("resflow") else "stage_widths"
    assert f"{field} {', '.join(map(str, getattr(PRESETS[name], field)))} " in text
    assert ("weights none shipped" in text) == (name not in checkpoints.shipped())


def test_info_cuts_no_path(f2d, make_long_weights):
    assert f": {make_long_weights / 'f2d-paper'}\n" in f2d("info").stdout
    assert f": {make_long_weights / 'f2d-paper'}\n" in f2d("info", "f2d-paper").stdout


def test_info_names_the_backend_in_force(f2d, monkeypatch):
    monkeypatch.setenv("F2D_KERNELS_BACKEND", "reference")
    assert "kernel backend reference" in one_line(f2d("info").stdout)


def test_damaged_checkpoints_are_one_line(f2d, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    for content in (b"[]", b"null", b"\xff\x00", b'{"time_dim": "8"}', b'{"groups": 0}'):
        (folder / "config.json").write_bytes(content)
        assert_one_line_error(f2d("info", folder), 2, "config.json")


def test_info_of_no_model(f2d):
    assert_one_line_error(f2d("info", "f2d-nope"), 2, "f2d-nope", *checkpoints.shipped())


def test_precision_follows_the_processor(monkeypatch):
    for amx, avx, expected in ((True, True, "AMX"), (False, True, "AVX512-BF16"), (False, False, None)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda answer=amx: answer)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda answer=avx: answer)
        execution = choose_execution("cpu")
        assert execution.precision == ("bf16" if expected else "float32")
        assert expected is None or execution.reason == expected
        assert choose_execution("cpu", "float32").precision == "float32"


@pytest.mark.parametrize("device", ["abacus", "meta", "cuda:99", "cpu:7"])
def test_devices_that_are_not_here(device):
    with pytest.raises(ValueError, match=device):
        choose_execution(device)


def test_help_and_simple_mistakes_do_not_import_pytorch():
    code = """
import sys
from typer.testing import CliRunner
from f2d.cli.commands import app
for arguments in (["--help"], ["restore", "--help"], ["restore", "nope.png", "-o", "out"], ["restore"]):
    CliRunner().invoke(app, arguments)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
