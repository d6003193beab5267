"""The registry: what is in it, and the least traffic of its cases against numbers worked out by hand."""

import pytest
import torch

from bench.cases import ops
from bench.cases.stages import PRESETS, stage_case
from bench.providers import Inputs, tensors
from bench.registry import MODES, Traffic
from f2d.nets.f2dnet.config import PRESETS as CONFIGS
from f2d_kernels import use_backend

OPS = ops()
SIX = [
    "expert_assembly",
    "lognormal_transition",
    "transport_step",
    "gaussian_transition",
    "expert_head",
    "group_norm_silu",
]


def case(op: str, name: str):
    return next(c for c in OPS[op].cases if c.name == name)


def test_all_public_ops_are_measured():
    assert list(OPS) == SIX


@pytest.mark.parametrize("name", PRESETS)
def test_stage_sizes_are_those_of_the_model(name):
    ours, config = PRESETS[name], CONFIGS[f"f2d-{name}"]
    assert (ours.head, ours.expert, ours.stages) == (config.head_channels, config.expert_width, config.stage_widths)
    assert (ours.patch, ours.stride) == (config.patch, config.stride)


@pytest.mark.parametrize("op", SIX)
def test_every_kind_of_case_is_there(op):
    cases = OPS[op].cases
    assert {c.dtype for c in cases} == {torch.float32, torch.bfloat16}
    assert {c.train for c in cases} == {True, False} and any(c.quick for c in cases)
    for size in ("256x256", "512x512", "1080x720"):
        assert any(size in c.name for c in cases)


def test_two_cases_of_one_name_are_refused(monkeypatch):
    from dataclasses import replace

    import bench.cases

    op = OPS["expert_assembly"]
    monkeypatch.setattr(bench.cases, "OPS", (replace(op, cases=(op.cases[0], op.cases[0])),))
    with pytest.raises(ValueError, match="two cases have one name"):
        ops()


def test_a_stage_is_padded_and_halved_as_in_the_network():
    lite = stage_case("x", "lite/restore/1080x720/bf16/nhwc/seed", channels=24)
    assert lite.image == (1, 24, 360, 544)  # 1080 -> 1088, a multiple of 16; then half of both
    assert (lite.dtype, lite.channels_last, lite.variant, lite.modes) == (torch.bfloat16, True, "seed", ("forward",))
    assert stage_case("x", "lite/train/256x256/b8/f32", channels=64, level=1).image == (8, 64, 64, 64)
    assert stage_case("x", "paper/train/512x512/b2/f32", channels=3, level=None).modes == MODES


# bytes worked out by hand from the formulas of "Least traffic"
@pytest.mark.parametrize(
    ("op", "name", "mode", "read", "written"),
    [
        # n = 3·720·1080·4 = 9,331,200; a map 3,110,400: 5 n + 4 maps in, n out
        ("expert_assembly", "paper/restore/1080x720/f32", "forward", 59_097_600, 9_331_200),
        # n = 8·3·65,536·4 = 6,291,456, maps 8·4·65,536·4 = 8,388,608: n + 4 n + maps in, 4 n + maps out
        ("expert_assembly", "paper/train/256x256/b8/f32/stacked", "backward", 39_845_888, 33_554_432),
        ("lognormal_transition", "paper/restore/1080x720/f32/seed", "forward", 18_662_400, 9_331_200),
        ("lognormal_transition", "paper/restore/1080x720/f32/noise", "forward", 27_993_600, 9_331_200),
        ("lognormal_transition", "lite/train/256x256/b8/f32/seed", "backward", 6_291_456, 12_582_912),
        # x, base, 4 deltas and 4 maps in; x_next and mu out
        ("transport_step", "paper/restore/1080x720/f32/seed", "forward", 68_428_800, 18_662_400),
        ("gaussian_transition", "paper/restore/1080x720/f32/ddim/seed", "forward", 18_662_400, 9_331_200),
        # plane 360·544·4 = 783,360: (4·32 features + 4 maps + 24) planes in, 24 out
        ("expert_head", "lite/restore/1080x720/f32", "forward", 72_069_120, 18_800_640),
        # 32·783,360 = 25,067,520; a group is an eighth of that and stays in cache
        ("group_norm_silu", "lite/restore/1080x720/f32/film", "forward", 25_067_520, 25_067_520),
        ("group_norm_silu", "paper/restore/1080x720/bf16/nhwc/film", "forward", 199_065_600, 99_532_800),
    ],
)
def test_least_traffic(op, name, mode, read, written):
    traffic = OPS[op].traffic(case(op, name), mode)
    assert (traffic.read, traffic.written) == (read, written)


def test_forward_and_backward_together_have_the_traffic_of_both():
    assert Traffic(1, 2, 3, 4) + Traffic(10, 20, 5, 1) == Traffic(11, 22, 5, 4)
    assert Traffic(1, 2, 3, 4).total == 3
    train = case("expert_assembly", "paper/train/256x256/b8/f32/stacked")
    op = OPS["expert_assembly"]
    assert op.traffic(train, "both").total == op.forward(train).total + op.backward(train).total


@pytest.mark.parametrize("op", [op for op in SIX if op != "group_norm_silu"])  # reads x twice
def test_forward_traffic_is_the_size_of_the_large_arguments_and_results(op):
    """Independent of the formulas: add up the tensors there are; small ones (gates, weights) are less than 2 %."""
    small = [c for c in OPS[op].cases if not c.train and OPS[op].forward(c).total < 100e6]
    assert small
    for c in small:
        inputs = Inputs.new(OPS[op], c, torch.device("cpu"))
        with use_backend("reference"):
            results = tensors(OPS[op].ours(**inputs.arguments))
        there = inputs.bytes + sum(r.numel() * r.element_size() for r in results)
        assert OPS[op].traffic(c, "forward").total == pytest.approx(there, rel=0.02), c.name
