"""The engine computes what the plain network does: in float64 to the rounding, else within its bars."""

import math

import pytest
import torch

from f2d import F2DNet, restore_tensor
from f2d.engine import Engine
from f2d.engine.folding import fold_projection, fold_repeated_input
from f2d.engine.layers import Conv, pixelwise_linear
from f2d.nets.f2dnet.experts import Expert
from tests.nets.small import LIGHT

VARIANTS = {
    "paper's form": {},
    "shipped form": LIGHT,
    "light, three stages, an enhancer": {
        **LIGHT,
        "stage_widths": (8, 12, 16),
        "blocks_per_stage": (2, 1, 1),
        "bottleneck_blocks": 1,
        "parser_widths": (8, 12, 16),
        "enhancer_width": 8,
        "head": "residual",
    },
    "light without maps": {**LIGHT, "spatial_maps": False, "patch": 1},
    "published layers at half resolution": {
        "bottleneck_blocks": 0,
        "enhancer_width": None,
        "patch": 2,
        "head": "affine",
    },
    "enhancer at half resolution": {"patch": 2},
    "no maps": {"spatial_maps": False},
    "three stages, five factors": {
        "stage_widths": (8, 12, 16),
        "blocks_per_stage": (2, 1, 1),
        "factors": ("a", "b", "c", "d", "e"),
    },
}
SIZES = [(1, 1), (7, 5), (8, 8), (17, 30)]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4 / max((a - b).double().square().mean().item(), 1e-30))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_float64_agrees_to_the_rounding(make_net, image, variant, size):
    net, y = make_net(**VARIANTS[variant]).double(), image(2, 3, *size, dtype=torch.float64)
    predictor = Engine(net, torch.float64).predictor(skipping=False)
    plain, fast = net.analyse(y), predictor.analyse(y)
    for name in ("enhanced", "maps", "weights", "logits", "map_means"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=0, atol=1e-11, msg=name)
    for x, x_fast, t in ((plain.enhanced, fast.enhanced, 0), (y.flip(0), y.flip(0), 37)):
        expected, found = net.velocity(x, plain, t), predictor.velocity(x_fast, fast, t)
        assert expected.prediction.std() > 0.1 or min(size) == 1
        torch.testing.assert_close(found.prediction, expected.prediction, rtol=0, atol=1e-11)
        torch.testing.assert_close(found.gates, expected.gates, rtol=0, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 100), (torch.bfloat16, 40)])
def test_restorations_agree(make_net, image, variant, dtype, least):
    """Four steps; bf16's bar is lower than for the real sizes, as eight channels average little of the rounding."""
    net, y = make_net(**VARIANTS[variant]), image(1, 3, 33, 47)
    expected = restore_tensor(net, y, steps=4, seed=3)
    found = restore_tensor(Engine(net, dtype).predictor(skipping=False), y, steps=4, seed=3)
    assert found.dtype == torch.float32 and psnr(found, expected) > least
    assert psnr(expected, y) < 25  # it does something


@torch.no_grad()
def test_golden_tensors(golden, golden_net):
    """The numerical contract itself, in float32, to 1e-4."""
    engine = Engine(golden_net)
    predictor = engine.predictor(skipping=False)
    analysis = predictor.analyse(golden["degraded"])
    found = {
        "enhanced": analysis.enhanced,
        "enhancer_gate": analysis.enhancer_gate,
        "factor_weights": analysis.weights,
        "factor_logits": analysis.logits,
        "maps": analysis.maps,
    }
    steps = golden["t"].tolist()
    for b, t in enumerate(steps):
        one = predictor.velocity(golden["x_t"], analysis, int(t))
        torch.testing.assert_close(one.prediction[b], golden["prediction"][b], rtol=0, atol=1e-4)
        torch.testing.assert_close(one.gates[b], golden["gates"][b], rtol=0, atol=1e-4)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.reshape(golden[name].shape), golden[name], rtol=0, atol=1e-4, msg=name)
    restored = restore_tensor(
        engine.predictor(), golden["degraded"], steps=4, sampler="NMC", noise=golden["noise_four_steps"]
    )
    torch.testing.assert_close(restored, golden["restored_four_steps_nmc"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 100), (torch.bfloat16, 50)])
def test_shipped_weights(image, dtype, least):
    net = F2DNet.from_pretrained("f2d-lite")
    smooth = torch.nn.functional.interpolate(image(1, 3, 7, 9), (50, 70), mode="bicubic").clamp(-1, 1)
    assert (
        psnr(restore_tensor(Engine(net, dtype).predictor(), smooth, seed=0), restore_tensor(net, smooth, seed=0))
        > least
    )


@pytest.mark.parametrize("dilation", [1, 3])
@torch.no_grad()
def test_folded_projection_is_exact_at_the_borders_too(dilation):
    torch.manual_seed(0)
    expert, x = Expert(5, 8, 3, dilation, 4).double(), torch.randn(2, 5, 9, 7, dtype=torch.float64)
    expected = expert.conv1(expert.project_in(x))
    ones = torch.ones(2, 1, 9, 7, dtype=torch.float64)
    folded = fold_projection(expert)
    found = torch.conv2d(torch.cat([x, ones], 1), folded, expert.conv1.bias, padding=dilation, dilation=dilation)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    into_bias = expert.conv1.bias + folded[:, 5].sum(dim=(1, 2))  # without the channel of ones the borders are wrong
    wrong = torch.conv2d(x, folded[:, :5], into_bias, padding=dilation, dilation=dilation)
    assert (wrong - expected).abs().max() > 1e-2


def test_repeated_input_is_the_sum_of_the_halves():
    weight, y = torch.randn(4, 6, 3, 3, dtype=torch.float64), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    found = torch.conv2d(y, fold_repeated_input(weight), padding=1)
    torch.testing.assert_close(found, torch.conv2d(torch.cat([y, y], 1), weight, padding=1), rtol=0, atol=1e-13)


@torch.no_grad()
def test_transposed_and_pointwise_convolutions():
    torch.manual_seed(0)
    for layer in (torch.nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1), torch.nn.Conv2d(6, 5, 1)):
        for size in ((1, 1), (4, 8), (5, 7)):
            x = torch.randn(2, 6, *size, dtype=torch.float64)
            found = Conv.of(layer.double(), torch.float64)(x)
            torch.testing.assert_close(found, layer(x), rtol=0, atol=1e-13)
            assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("pixels", [1, 2, 5, 35, 48, 221, 1000, 4160])
def test_a_pixelwise_product_does_not_depend_on_threads(pixels):
    x, weight = torch.randn(1, 256, 1, pixels), torch.randn(96, 256)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(pixelwise_linear(x, weight, None))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@torch.no_grad()
def test_the_repeated_input_is_used_where_it_is_exact_only(make_net, image, monkeypatch):
    """With an enhancer and a padded size, the padded state is not the enhanced padding."""
    used = []
    from f2d.engine import backbone

    forward = backbone.FastBackbone.forward
    monkeypatch.setattr(backbone.FastBackbone, "forward", lambda *a: used.append(a[-1]) or forward(*a))
    for changes, size, expected in (({}, (8, 8), True), ({}, (7, 8), False), ({"enhancer_width": None}, (7, 8), True)):
        predictor = Engine(make_net(**changes)).predictor()
        analysis = predictor.analyse(image(1, 3, *size))
        predictor.velocity(analysis.enhanced, analysis, 0)
        predictor.velocity(analysis.enhanced.clone(), analysis, 0)
        assert used == [expected, False]
        used.clear()


def test_the_engine_leaves_the_network_alone_and_does_not_follow_it(make_net, image):
    net, y = make_net().train(), image(1, 3, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    engine = Engine(net, torch.bfloat16)
    first = restore_tensor(engine.predictor(), y, seed=0)
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(restore_tensor(engine.predictor(), y, seed=0), first)
