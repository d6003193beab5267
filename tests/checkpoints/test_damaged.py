"""Checkpoint folders with something wrong in them: one ValueError that names the file and the fault."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from f2d import checkpoints
from f2d.nets import F2DNet
from tests.nets.small import TINY


@pytest.fixture
def folder(tmp_path):
    F2DNet(TINY).save_pretrained(tmp_path)
    return tmp_path


def refused(folder, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        F2DNet.from_pretrained(folder)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"[1, 2]", "mapping of its fields, got list"),
        (b"null", "got NoneType"),
        (b'"text"', "got str"),
        (b"", "not JSON"),
        (b"\x80\xff\x00junk", "not JSON"),
        (b"[" * 200_000, "not JSON"),
    ],
)
def test_a_config_that_is_no_mapping(folder, content, word):
    (folder / "config.json").write_bytes(content)
    refused(folder, str(folder / "config.json"), word)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time_dim", "8"),
        ("time_dim", 8.0),
        ("time_dim", True),
        ("time_dim", None),
        ("time_dim", -8),
        ("time_dim", 10**9),
        ("groups", 0),
        ("groups", -4),
        ("attention_heads", -1),
        ("expert_width", 0),
        ("enhancer_width", -1),
        ("enhancer_blocks", -1),
        ("frequency_dim", 0),
        ("num_steps", 10**12),
        ("bottleneck_blocks", 10**9),
        ("stage_widths", 8),
        ("stage_widths", "88"),
        ("stage_widths", [8, None]),
        ("stage_widths", [8, -16]),
        ("stage_widths", [8] * 64),
        ("blocks_per_stage", [1, 0]),
        ("parser_widths", [4, 0]),
        ("factors", "rain"),
        ("factors", [1, 2, 3, 4]),
        ("factors", ["../rain", "low"]),
        ("spatial_maps", 1),
        ("gate_noise", -0.1),
        ("gate_noise", float("nan")),
        ("gate_noise", "0.1"),
        ("head", ["affine"]),
        ("theta", {"cosine": 1}),
        ("target", None),
    ],
)
def test_a_field_of_another_type_or_out_of_range_is_named(folder, field, value):
    config = json.loads((folder / "config.json").read_text())
    if field == "stage_widths" and value == [8] * 64:
        config["blocks_per_stage"] = [1] * 64
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    refused(folder, str(folder / "config.json"), field)


def resave(folder, **changes) -> None:
    """Replace tensors; None leaves one out."""
    state = {**load_file(folder / "model.safetensors"), **changes}
    save_file({name: t for name, t in state.items() if t is not None}, folder / "model.safetensors")


def test_tensors_that_do_not_fit_are_named(folder):
    name, other = "experts.1.conv.bias", "experts.2.conv.bias"
    resave(folder, **{name: None, "extra": torch.zeros(1), other: torch.zeros(5)})
    refused(folder, f"missing {name}", "unexpected extra", f"{other} must be (8,), got (5,)")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float8_e4m3fn])
def test_tensors_that_are_no_weights_are_refused(folder, dtype):
    resave(folder, **{"experts.1.conv.bias": torch.zeros(8).to(dtype)})
    refused(folder, f"experts.1.conv.bias must be torch.float32, got {dtype}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(folder, value):
    resave(folder, **{"experts.1.conv.bias": torch.full((8,), value)})
    refused(folder, "damaged: experts.1.conv.bias is not finite")


def test_what_overflows_float32_is_not_finite(folder):
    resave(folder, **{"experts.1.conv.bias": torch.full((8,), 1e300, dtype=torch.float64)})
    refused(folder, "experts.1.conv.bias is not finite")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(folder, dtype):
    state = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")
    loaded = F2DNet.from_pretrained(folder).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


def test_a_save_that_was_killed_between_its_files_does_not_load_as_a_mixture(folder, monkeypatch):
    """The same shapes and another meaning: nothing but the record in the weights can tell."""
    torch.manual_seed(1)
    other = F2DNet(type(TINY)(**{**TINY.to_dict(), "target": "FINAL_X"}))

    replacing = checkpoints.replacing

    def killed_before_config(path):
        if path.name == "config.json":
            raise KeyboardInterrupt
        return replacing(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "replacing", killed_before_config)
        other.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    refused(folder, "model.safetensors", "a different config.json")
    other.save_pretrained(folder)
    assert F2DNet.from_pretrained(folder).config == other.config


def test_weights_without_that_record_load(folder):
    """Those of other programs, and of older versions of this one."""
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert F2DNet.from_pretrained(folder).config == TINY
