"""The network as users meet it: shapes, sizes, laws of its parts, precision, errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.nets import F2DNet, F2DNetConfig
from f2d.nets.padding import pad_to_multiple

VARIANTS = [
    {},
    {"patch": 2},
    {"head": "affine"},
    {"patch": 2, "head": "affine", "enhancer_width": None},
    {"spatial_maps": False},
    {"factors": ("noise", "haze", "rain"), "bottleneck_blocks": 0},
]


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 47), (8, 16)])
def test_any_size(make_net, variant, size):
    net = make_net(**variant)
    factors, channels = len(net.config.factors), 6 if net.config.head == "affine" else 3
    with torch.no_grad():
        out = net(image(2, 3, *size), image(2, 3, *size, seed=2), 3)
    assert out.prediction.shape == out.analysis.enhanced.shape == (2, 3, *size)
    assert out.deltas.shape == (2, factors, channels, *size)
    assert out.shared_velocity.shape == (2, channels, *size)
    assert out.analysis.maps.shape == (2, factors, *size)
    assert out.gates.shape == out.analysis.weights.shape == out.analysis.logits.shape == (2, factors)
    assert out.prediction.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_prediction_is_the_factorized_sum(make_net, variant):
    """v = shared + Σ_k alpha_k m_k ⊙ Δ_k (G, B and v = G ⊙ y + B when affine), recomputed from what forward returns."""
    net = make_net(**variant)
    with torch.no_grad():
        out = net(image(2, 3, 9, 14), image(2, 3, 9, 14, seed=2), torch.tensor([5, 60]))
    weights = out.gates[:, :, None, None, None] * out.analysis.maps[:, :, None]
    v = out.shared_velocity + (weights * out.deltas).sum(dim=1)
    if net.config.head == "affine":
        v = v[:, :3] * out.analysis.enhanced + v[:, 3:]
    assert out.deltas.abs().max() > 0.01
    torch.testing.assert_close(out.prediction, v, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.gates.sum(dim=1), torch.ones(2))


def test_a_new_network_corrects_nothing():
    """Zero-initialised experts; an affine head starts at v = 0, a new enhancer at the identity."""
    lite = F2DNet(F2DNetConfig.preset("f2d-lite")).eval()
    y = image(1, 3, 32, 32)
    assert not lite(image(1, 3, 32, 32, seed=2), y, 50).prediction.any()
    net = F2DNet(F2DNetConfig(stage_widths=(8, 8), blocks_per_stage=(1, 1), expert_width=8)).eval()
    out = net(y, y, 0)
    assert not out.deltas.any() and out.prediction.any()
    assert torch.equal(out.prediction, out.shared_velocity)
    assert torch.equal(out.analysis.enhanced, y)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_forward_is_velocity_of_the_analysis(make_net, variant):
    net, x, y = make_net(**variant), image(2, 3, 13, 10), image(2, 3, 13, 10, seed=2)
    with torch.no_grad():
        analysis = net.analyse(y)
        for t in (0, 40):
            whole = net(x, y, t).prediction
            assert torch.equal(net.velocity(x, analysis, torch.tensor([t, t])).prediction, whole)
            assert torch.equal(net.velocity(x, analysis, torch.tensor(t)).prediction, whole)
    assert not torch.equal(net(x, y, 0).prediction, whole)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_images_of_a_batch_do_not_mix(make_net, variant):
    net, x, y = make_net(**variant), image(3, 3, 12, 20), image(3, 3, 12, 20, seed=2)
    t = torch.tensor([0, 30, 99])
    with torch.no_grad():
        batch = net(x, y, t).prediction
        single = torch.cat([net(x[i : i + 1], y[i : i + 1], t[i : i + 1]).prediction for i in range(3)])
    torch.testing.assert_close(batch, single, rtol=1e-5, atol=1e-5)


def test_every_trainable_parameter_learns(make_net):
    net = make_net(patch=2, head="affine", expert_width=32).train()
    out = net(image(2, 3, 16, 16), image(2, 3, 16, 16, seed=2) * 0.1 - 0.8, torch.tensor([10, 90]))
    (out.prediction.square().mean() + out.analysis.logits.square().mean()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == ["backbone.frequency_embedding.laplacian"]


def test_gate_noise_only_while_training(make_net):
    net, x = make_net(gate_noise=0.075), image(4, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(net(x, x, 0).gates, net(x, x, 0).gates)
        quiet = net(x, x, 0).gates
        net.train()
        noisy = torch.stack([net(x, x, 0).gates for _ in range(200)])
    # log alpha differences carry the noise of two logits: sd = 0.075 √2
    difference = (noisy[..., 0].log() - noisy[..., 1].log()) - (quiet[..., 0].log() - quiet[..., 1].log())
    assert difference.std().item() == pytest.approx(0.075 * 2**0.5, rel=0.1)
    assert abs(difference.mean().item()) < 5 * 0.106 / 800**0.5


def test_image_level_routing_has_maps_of_ones(make_net):
    net, x = make_net(spatial_maps=False), image(1, 3, 9, 9)
    out = net(x, x, 0)
    assert net.parser.decoder is None
    assert (out.analysis.maps == 1).all()


def test_maps_of_patches_are_those_applied(make_net):
    net, x = make_net(patch=2), image(1, 3, 8, 8)
    maps = net.analyse(x).maps
    assert torch.equal(maps[:, :, ::2, ::2], maps[:, :, 1::2, 1::2])
    assert not torch.equal(maps[:, :, ::2, ::2], maps[:, :, ::2, ::2].flip(3))


def test_enhancer_gate(make_net):
    """g = sigmoid(10 (0.3 - luma)) · learned gate, which is 1/2 when its MLP is zero: dark images only are touched."""
    net = make_net()
    for parameter in net.enhancer.gate_mlp.parameters():
        torch.nn.init.zeros_(parameter)
    colours = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, -1], [-0.4, -0.4, -0.4]])
    gate = net.analyse(colours[:, :, None, None].expand(4, 3, 8, 8)).enhancer_gate.flatten()
    luma = torch.tensor([0.0, 1.0, 0.299, 0.3])
    torch.testing.assert_close(gate, 0.5 / (1 + torch.exp(-10 * (0.3 - luma))), rtol=1e-5, atol=1e-7)


def test_frequency_embedding_ignores_smooth_features(make_net):
    """The Laplacian of a constant or linear feature map is zero away from the border."""
    embedding = make_net().backbone.frequency_embedding
    ramp = torch.linspace(0, 1, 9).expand(1, 16, 9, 9)
    high = F.conv2d(ramp, embedding.laplacian, groups=16)
    torch.testing.assert_close(high, torch.zeros_like(high), rtol=0, atol=1e-5)
    impulse = F.pad(torch.ones(1, 16, 1, 1), (1, 1, 1, 1))
    assert F.conv2d(impulse, embedding.laplacian, groups=16).eq(8).all()


def test_time_embedding_of_zero_and_its_slowest_wave(make_net):
    embedding = make_net().backbone.time_embedding
    embedding.mlp = torch.nn.Sequential(torch.nn.Linear(16, 16, bias=False))
    torch.nn.init.eye_(embedding.mlp[0].weight)
    zero, late = embedding(torch.tensor([0, 100]))
    assert torch.equal(zero, torch.tensor([0.0] * 8 + [1.0] * 8))
    torch.testing.assert_close(late[7], torch.tensor(100 / 10000).sin())  # exponent over half - 1
    torch.testing.assert_close(late[0], torch.tensor(100.0).sin())


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 16))
def test_padding(height, width, multiple):
    x = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    padded = pad_to_multiple(x, multiple)
    for size, padded_size in zip((height, width), padded.shape[2:]):
        assert padded_size % multiple == 0 and 0 <= padded_size - size < multiple
    assert torch.equal(padded[..., :height, :width], x)
    if (
        padded.shape[2] > height
    ):  # the first added row mirrors the last but one, or repeats the only one there is room for
        can_reflect = padded.shape[2] - height < height
        assert torch.equal(padded[..., height, :width], x[..., height - 2 if can_reflect else height - 1, :])


@pytest.mark.parametrize("preset", ["f2d-lite", "f2d-base"])
def test_bf16_and_channels_last(preset):
    torch.manual_seed(0)
    net, x, y = F2DNet.from_preset(preset).eval(), image(1, 3, 64, 64), image(1, 3, 64, 64, seed=2)
    for head in [net.backbone.conv_out, *(expert.project_out for expert in net.experts)]:
        torch.nn.init.normal_(head.weight, std=0.05)
    with torch.no_grad():
        exact = net(x, y, 0).prediction
        net = net.to(memory_format=torch.channels_last)
        x, y = (z.to(memory_format=torch.channels_last) for z in (x, y))
        torch.testing.assert_close(net(x, y, 0).prediction, exact, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x, y, 0).prediction
        whole = net.to(torch.bfloat16)(x.bfloat16(), y.bfloat16(), 0).prediction
    for rounded in (mixed, whole):  # bf16 keeps 8 bits; layers of rounding add up to a few per cent of the signal
        assert (rounded.float() - exact).norm() < 0.05 * exact.norm()


def test_compiles_without_graph_breaks(make_net):
    net, x, y = make_net(patch=2, head="affine"), image(2, 3, 12, 12), image(2, 3, 12, 12, seed=2)
    compiled = torch.compile(lambda x, y, t: net(x, y, t).prediction, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, y, torch.tensor([3, 4])), net(x, y, torch.tensor([3, 4])).prediction)


def test_errors_name_what_is_wrong(make_net):
    net, y = make_net(), image(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"y must be \[B, 3, H, W\].*got \(2, 1, 8, 8\)"):
        net.analyse(y[:, :1])
    with pytest.raises(ValueError, match=r"y must be .*got \(3, 8, 8\)"):
        net.analyse(y[0])
    with pytest.raises(TypeError, match=r"y must hold floating-point values in \[-1, 1\].*got torch.uint8"):
        net.analyse(y.to(torch.uint8))
    with pytest.raises(ValueError, match="batch 2 and size 8x8"):
        net(y[..., :7], y, 0)
    with pytest.raises(ValueError, match=r"t must be an int or \[2\].*got \(3,\)"):
        net(y, y, torch.zeros(3))
