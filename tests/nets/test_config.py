"""Published sizes, the promised bounds of the small presets, and configurations as data."""

import json

import pytest
import torch

from f2d.nets import PRESETS, F2DNet, F2DNetConfig
from f2d.nets.cost import multiply_adds_per_pixel, parameter_count


@pytest.fixture(scope="module")
def paper() -> F2DNet:
    with torch.device("meta"):
        return F2DNet(F2DNetConfig.preset("f2d-paper"))


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts(paper):
    laplacian = paper.backbone.frequency_embedding.laplacian.numel()
    assert count(paper.enhancer) == 483_668
    assert count(paper.parser) == 468_492
    assert count(paper.backbone) - laplacian == 21_489_031
    assert laplacian == 2_304
    assert [count(expert) for expert in paper.experts] == [312_579] * 4
    assert count(paper) == parameter_count(paper.config) == 23_771_627


def test_published_arithmetic():
    assert multiply_adds_per_pixel(PRESETS["f2d-paper"]) == pytest.approx(3.31e6, rel=2e-3)
    without_enhancer = F2DNetConfig(enhancer_width=None)
    share = 1 - multiply_adds_per_pixel(without_enhancer) / multiply_adds_per_pixel(PRESETS["f2d-paper"])
    assert share == pytest.approx(0.15, abs=0.005)


def test_other_tasks():
    three = F2DNetConfig(factors=("noise", "haze", "rain"), enhancer_width=None)
    assert round(parameter_count(three) / 1e6, 2) == 22.97
    five = F2DNetConfig(factors=("noise", "haze", "rain", "blur", "low"))
    with torch.device("meta"):
        net = F2DNet(five)
    assert len(net.experts) == 5 and net.experts[4].conv1.dilation == (5, 5)


@pytest.mark.parametrize(("name", "parameters", "multiply_adds"), [("f2d-lite", 2e6, 130e3), ("f2d-base", 13e6, 300e3)])
def test_small_presets_keep_their_bounds(name, parameters, multiply_adds):
    assert parameter_count(PRESETS[name]) <= parameters
    assert multiply_adds_per_pixel(PRESETS[name]) <= multiply_adds


def test_multiply_adds_of_one_convolution():
    """Widening the parser's first layer by 8 channels: 7x7x3 more inputs there, 3x3 / 4 in the layer after it."""
    narrow = F2DNetConfig(parser_widths=(32, 64), parser_decoder_widths=(32, 32))
    wide = F2DNetConfig(parser_widths=(40, 64), parser_decoder_widths=(32, 32))
    added = multiply_adds_per_pixel(wide) - multiply_adds_per_pixel(narrow)
    assert added == pytest.approx(8 * 7 * 7 * 3 + 8 * 64 * 9 / 4)


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    config = PRESETS[name]
    assert F2DNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": ()}, r"factors must be a list of at least one name.*got \(\)"),
        ({"factors": ("rain", "rain")}, "must be a list without duplicates"),
        ({"factors": tuple(f"f{i}" for i in range(65))}, "factors must be at most 64 names, got 65"),
        ({"blocks_per_stage": (1,)}, "stage_widths and blocks_per_stage must be equally long, 1 to 8, got 4 and 1"),
        ({"parser_widths": (8,)}, "parser_widths and parser_decoder_widths must be equally long, 1 to 8, got 1 and 4"),
        ({"design": "heavy"}, r"design must be one of published, light.*got 'heavy'"),
        ({"design": "light"}, r"attention_heads must be 0 with design light.*got 4"),
        ({"design": "light", "attention_heads": 0}, "parser_decoder_widths must be empty with design light"),
        (
            {"design": "light", "attention_heads": 0, "parser_decoder_widths": (), "parser_widths": (8,)},
            "must be 2 to 8 widths",
        ),
        ({"attention_heads": 0}, r"attention_heads must be 1 to 65,536.*got 0"),
        ({"expert_width": 100}, "must hold multiples of groups=8, got 100"),
        ({"stage_widths": (64, 128, 256, 250)}, "must hold multiples of groups=8, got 250"),
        ({"attention_heads": 3}, "attention_heads=3"),
        ({"time_dim": 5}, "time_dim must be an even number, got 5"),
        ({"patch": 3}, r"patch must be 1 or 2.*got 3"),
        ({"head": "linear"}, "head must be one of residual, affine, got 'linear'"),
        ({"target": "NOISE"}, "target must be one of SFLOW, FLOW, FINAL_X, got 'NOISE'"),
        ({"theta": "sine"}, r"theta must be one of .*got 'sine'"),
        ({"num_steps": 0}, "num_steps must be 1 to 1,000,000, got 0"),
    ],
)
def test_bad_configurations_say_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        F2DNetConfig(**change)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"has no base_ch, emb_dim"):
        F2DNetConfig.from_dict({"base_ch": 8, "emb_dim": 64})
    with pytest.raises(ValueError, match=r"preset must be one of f2d-paper, f2d-base, f2d-lite.*got 'f2d-huge'"):
        F2DNet.from_preset("f2d-huge")
