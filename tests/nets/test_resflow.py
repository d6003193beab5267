"""ResFlow's network: sizes, laws of its parts, precision, checkpoints, errors."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from f2d.nets.resflow import PRESETS, ResFlowConfig, ResFlowNet
from f2d.nets.resflow.unet import AdaptiveBlock, SelfAttention

SIZES = {"channels": 8, "multipliers": (1, 2), "blocks": (1, 1), "groups": 4, "time_dim": 16, "adaptor_width": 4}
VARIANTS = [
    {},
    {"patch": 2},
    {"injection": "concatenation"},
    {"injection": "addition", "attention_levels": 0},
    {"auxiliary": "none"},
    {"head": "affine"},
    {"head": "affine", "auxiliary": "none", "patch": 2},
    {"auxiliary": "boundary", "multipliers": (1, 2, 1), "blocks": (2, 1, 1), "attention_levels": 3, "patch": 2},
]


def make_net(**changes) -> ResFlowNet:
    """A small network in eval mode whose zero-initialised layers are not zero."""
    torch.manual_seed(0)
    net = ResFlowNet(ResFlowConfig(**{**SIZES, **changes})).eval()
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def auxiliary_for(net: ResFlowNet, like: torch.Tensor) -> torch.Tensor | None:
    return net.transport.auxiliary_at(0.5, like, seed=3)


def measured(config: ResFlowConfig, size: int = 256) -> tuple[int, float]:
    """(parameters, multiply-adds per pixel of one call for a size x size image)."""
    with torch.device("meta"):
        net, x = ResFlowNet(config).eval(), torch.zeros(1, 3, size, size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x, x, 0.5)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() / 2 / size**2


@pytest.mark.parametrize("auxiliary", ["entropy", "none"])
def test_an_affine_head_is_a_gain_of_the_state_and_an_offset(auxiliary):
    net, x = make_net(head="affine", auxiliary=auxiliary, patch=2), image(2, 3, 6, 10)
    with torch.no_grad():
        net.unet.conv_out.weight.zero_()
        # channel c of the image is channels 4c .. 4c + 3 before the patches are put together
        net.unet.conv_out.bias.copy_(torch.tensor([0.5] * 12 + [0.1] * 12 + [7.0] * 4 * (net.transport.channels - 3)))
        velocity = net(x, auxiliary_for(net, x), 0.5)
    torch.testing.assert_close(velocity[:, :3], 0.5 * x + 0.1)
    assert (velocity[:, 3:] == 7).all() and velocity.shape[1] == net.transport.channels


def test_presets_have_their_sizes():
    """Paper: DDPM's published 35.7 million (Ho et al., appendix B) and our parts; lite: about f2d-lite per pixel."""
    parameters, _ = measured(PRESETS["resflow-paper"], size=64)
    assert 35.7e6 <= parameters <= 37e6
    parameters, multiply_adds = measured(PRESETS["resflow-lite"])
    assert parameters <= 2_000_000  # 1,622,852
    assert multiply_adds == pytest.approx(82_466, rel=0.15)  # 76,455


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 18), (8, 16)])
def test_any_size(variant, size):
    net, x = make_net(**variant), image(2, 3, *size)
    with torch.no_grad():
        velocity = net(x, auxiliary_for(net, x), 0.25)
    assert velocity.shape == (2, net.transport.channels, *size)
    assert velocity.isfinite().all() and velocity.std(unbiased=False) > 1e-3


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_parameter_learns(variant):
    net, x = make_net(**variant).train(), image(2, 3, 16, 16)
    draw = net.transport.draw(x, image(2, 3, 16, 16, seed=2), torch.tensor([0.1, 0.6]), torch.tensor([4, 5]))
    (net(draw.state, draw.auxiliary, draw.time) - draw.target).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_new_network_predicts_zeros():
    net = ResFlowNet.from_preset("resflow-lite")
    x = image(1, 3, 32, 32)
    assert not net(x, image(1, 3, 32, 32, seed=2), 0.5).any()
    y, predict = net.begin(x)
    assert torch.equal(net.transport.restore(predict, y, steps=4, sampler="euler", seed=0), x)


def test_a_new_block_is_the_identity_and_a_new_adaptor_changes_nothing():
    x, time = image(2, 8, 6, 6), image(2, 16)
    assert torch.equal(AdaptiveBlock(8, 8, 16, 4, attention=True)(x, time), x)
    net = make_net()
    state, auxiliary = image(1, 3, 8, 8), image(1, 3, 8, 8, seed=2)
    with torch.no_grad():
        before = net(state, auxiliary, 0.5)
        for modulation in net.injection.modulations:
            torch.nn.init.zeros_(modulation.weight)
            torch.nn.init.zeros_(modulation.bias)
        unmodulated = net(state, auxiliary, 0.5)
        assert torch.equal(net(state, auxiliary.flip(3), 0.5), unmodulated)
    assert not torch.equal(before, unmodulated)


def test_blocks_and_attention_are_their_formulas():
    torch.manual_seed(0)
    block = AdaptiveBlock(8, 12, 16, 4, attention=True).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, time = image(2, 8, 5, 6).double(), image(2, 16).double()
    scale, shift = block.time_linear(F.silu(time))[:, :, None, None].split(12, dim=1)
    h = block.conv1(F.silu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias)))
    h = F.group_norm(h, 4, block.norm2.weight, block.norm2.bias) * (1 + scale) + shift
    h = block.skip(x) + block.conv2(F.silu(h))
    attention: SelfAttention = block.attention
    q, k, v = attention.qkv(attention.norm(h)).flatten(2).split(12, dim=1)  # [B, C, pixels]
    weights = (torch.einsum("bci,bcj->bij", q, k) / 12**0.5).softmax(dim=2)
    h = h + attention.proj(torch.einsum("bij,bcj->bci", weights, v).reshape(2, 12, 5, 6))
    torch.testing.assert_close(block(x, time), h, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("injection", ["adaptor", "concatenation", "addition"])
def test_every_injection_uses_the_auxiliary(injection):
    net, x = make_net(injection=injection), image(1, 3, 8, 8)
    with torch.no_grad():
        one, other = (net(x, image(1, 3, 8, 8, seed=seed), 0.5) for seed in (2, 3))
        swapped = net(image(1, 3, 8, 8, seed=2), x, 0.5)
    assert (one - other).abs().max() > 1e-3
    # the sum forgets which is which; the others do not
    assert torch.allclose(swapped, one, atol=1e-6) == (injection == "addition")


def test_the_adaptor_modulates_every_level():
    net = make_net(multipliers=(1, 2, 1), blocks=(1, 1, 1), patch=2)
    _, modulations = net.injection(image(1, 12, 8, 12), image(1, 12, 8, 12))
    assert [tuple(scale.shape) for scale, _ in modulations] == [(1, 8, 8, 12), (1, 8, 4, 6), (1, 16, 2, 3)]
    x, auxiliary = image(1, 3, 16, 24), image(1, 3, 16, 24, seed=2)
    whole = net(x, auxiliary, 0.5)
    for modulation in net.injection.modulations:
        kept = modulation.bias.detach().clone()
        modulation.bias.data += 0.5
        assert (net(x, auxiliary, 0.5) - whole).abs().max() > 1e-3
        modulation.bias.data = kept


def test_modulation_is_scale_and_shift_of_the_entries():
    """Constant over pixels it can be folded into the convolutions by which levels are entered."""
    unet, folded = make_net().unet.double(), make_net().unet.double()
    x, t, modulations = image(2, 3, 6, 8).double(), torch.tensor([0, 500]), []
    for level, (entry, channels) in enumerate(zip(folded.entries, (8, 8))):
        scale, shift = image(2, channels, seed=level).double()
        modulations.append([v[:, None, None].expand(2, channels, 6 >> level, 8 >> level) for v in (scale, shift)])
        entry.weight.data *= 1 + scale[:, None, None, None]
        entry.bias.data = entry.bias * (1 + scale) + shift
    torch.testing.assert_close(unet(x, modulations, t), folded(x, (), t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradients_are_those_of_finite_differences(variant):
    net, x = make_net(**variant).double(), image(1, 3, 8, 8).double()
    auxiliary, step = auxiliary_for(net, x), 1e-5

    def loss() -> torch.Tensor:
        return net(x, auxiliary, 0.4).square().sum()

    directions = [torch.randn_like(p) for p in net.parameters()]
    loss().backward()
    slope = sum((p.grad * d).sum() for p, d in zip(net.parameters(), directions)).item()
    values = []
    with torch.no_grad():
        for shift in (step, -2 * step):
            for p, d in zip(net.parameters(), directions):
                p += shift * d
            values.append(loss().item())
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_times_as_numbers_and_tensors():
    net, x, auxiliary = make_net(), image(2, 3, 8, 8), image(2, 3, 8, 8, seed=2)
    with torch.no_grad():
        number = net(x, auxiliary, 0.3)
        assert torch.equal(net(x, auxiliary, torch.tensor([0.3, 0.3])), number)
        assert torch.equal(net(x, auxiliary, torch.tensor(0.3)), number)
        # close times are told apart, and batches of two times do not mix
        assert (net(x, auxiliary, 0.301) - number).abs().max() > 1e-5
        mixed = net(x, auxiliary, torch.tensor([0.3, 0.9]))
    torch.testing.assert_close(mixed[:1], number[:1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(mixed[1:], number[1:])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_channels_last_gives_the_same(variant):
    net, x = make_net(**variant), image(2, 3, 12, 20)
    auxiliary = auxiliary_for(net, x)
    with torch.no_grad():
        expected = net(x, auxiliary, 0.5)
        net = net.to(memory_format=torch.channels_last)
        last = [None if a is None else a.contiguous(memory_format=torch.channels_last) for a in (x, auxiliary)]
        torch.testing.assert_close(net(*last, 0.5), expected, rtol=1e-4, atol=1e-5)


def test_bf16_by_autocast_and_by_cast():
    net, x = make_net(), image(1, 3, 16, 16)
    auxiliary = auxiliary_for(net, x)
    with torch.no_grad():
        expected = net(x, auxiliary, 0.5)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x, auxiliary, 0.5)
        y, predict = net.bfloat16().begin(x.bfloat16())
        cast = predict(y, auxiliary, 0.5)
        restored = net.transport.restore(predict, y, steps=2, sampler="euler", seed=0)
    assert mixed.dtype == cast.dtype == torch.bfloat16 and y.dtype == restored.dtype == torch.float32
    for other in (mixed, cast):
        assert (other.float() - expected).norm() < 0.03 * expected.norm()


def test_gradients_flow_under_autocast():
    net, x = make_net().train(), image(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        net(x, auxiliary_for(net, x), 0.5).float().square().mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("variant", VARIANTS[:2], ids=str)
def test_backends_agree(backend, variant):
    """Each CPU backend against the same network in float64, with gradients."""
    net, exact = make_net(**variant), make_net(**variant).double()
    x = image(2, 3, 9, 11)
    auxiliary = auxiliary_for(net, x)
    velocity, expected = net(x, auxiliary, 0.3), exact(x.double(), auxiliary.double(), 0.3)
    torch.testing.assert_close(velocity.double(), expected, rtol=1e-4, atol=1e-5)
    velocity.square().sum().backward()
    expected.square().sum().backward()
    for (name, p), q in zip(net.named_parameters(), exact.parameters()):
        assert (p.grad - q.grad).norm() <= 1e-4 * q.grad.norm() + 1e-6, name
