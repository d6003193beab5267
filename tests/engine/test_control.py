"""Strength of each factor, and the experts that need not run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.engine import Engine
from f2d.engine.control import strengths
from f2d.engine.skipping import TOLERANCE, ExpertBound, experts_to_run
from f2d.nets.f2dnet.experts import Expert
from f2d_kernels import expert_assembly

FACTORS = ("low", "haze", "rain", "snow")


@torch.no_grad()
def predict(engine: Engine, y: torch.Tensor, **options):
    predictor = engine.predictor(**options)
    analysis = predictor.analyse(y)
    return predictor.velocity(analysis.enhanced, analysis, 0)


@pytest.mark.parametrize("head", ["residual", "affine"])
@torch.no_grad()
def test_strengths_scale_what_the_plain_experts_add(make_net, image, head):
    net, y = make_net(head=head).double(), image(2, 3, 9, 12, dtype=torch.float64)
    plain = net(net.analyse(y).enhanced, y, 0)
    wanted = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    total = expert_assembly(plain.deltas, plain.gates * wanted, plain.analysis.maps, plain.shared_velocity)
    if head == "affine":
        gain, offset = total.chunk(2, dim=1)
        total = gain * plain.analysis.enhanced + offset
    found = predict(Engine(net, torch.float64), y, strength={"low": 0, "haze": 0.5, "snow": 2})
    torch.testing.assert_close(found.prediction, total, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.gates, plain.gates, rtol=0, atol=1e-11)  # reported as the network has them
    assert found.ran == (1, 2, 3)


@torch.no_grad()
def test_all_off_is_the_shared_backbone_alone(make_net, image):
    net, y = make_net(), image(1, 3, 9, 12)
    found = predict(Engine(net), y, only=())
    shared = net(net.analyse(y).enhanced, y, 0).shared_velocity
    assert found.ran == () and (found.prediction - shared).abs().max() < 1e-5


def test_strengths_of():
    assert strengths(FACTORS) is None
    assert strengths(FACTORS, only={"rain"}) == (0, 0, 1, 0)
    assert strengths(FACTORS, {"rain": 0.5}, only=["rain", "haze"]) == (0, 1, 0.5, 0)
    assert strengths(FACTORS, {"low": 0}) == (0, 1, 1, 1)
    assert strengths(FACTORS, {"low": 0}, only=["rain"]) == (0, 0, 1, 0)
    for arguments, said in (
        (({"fog": 1},), "factors must be among low, haze, rain, snow, got 'fog'"),
        ((None, {"fog"}), r"factors must be among .*got 'fog'"),
        (({"low": -1},), r"strength of low must be a number >= 0 .*got -1"),
        (({"low": float("nan")},), r"strength of low must be .*got nan"),
        (({"low": float("inf")},), r"strength of low must be .*got inf"),
        (({"low": 1e39},), r"strength of low must be .*got 1e\+39"),  # infinite in float32: the image would be NaN
        (({"low": 1}, ["rain"]), "strength of low is 1, but only rain was requested"),
    ):
        with pytest.raises(ValueError, match=said):
            strengths(FACTORS, *arguments)
    with pytest.raises(TypeError, match=r"strength of low must be .*got str"):
        strengths(FACTORS, {"low": "1"})
    with pytest.raises(TypeError, match="only must be a collection of factor names, not the string 'rain'"):
        strengths(FACTORS, only="rain")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), spike=st.booleans(), side=st.integers(1, 12), affine=st.booleans())
@torch.no_grad()
def test_no_expert_ever_exceeds_its_bound(seed, spike, side, affine):
    """Random weights of any size, features that are noise or one spike (which comes within a factor of the bound)."""
    generator = torch.Generator().manual_seed(seed)
    expert = Expert(4, 8, 6, 1, 2).double()
    for parameter in expert.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 10 ** torch.randn(1, generator=generator))
    x = torch.randn(1, 4, side, side, generator=generator, dtype=torch.float64)
    if spike:
        x = torch.zeros_like(x).index_put_(
            (torch.tensor(0), torch.arange(4), torch.tensor(0), torch.tensor(0)), x[0, :, 0, 0]
        )
    delta = expert(x)[0].abs()
    change = delta[:3] + delta[3:] if affine else delta
    assert change.max() <= ExpertBound.of(expert).largest(side * side, affine)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")  # squeeze-excitation of one channel
@torch.no_grad()
def test_the_bound_is_reached_within_a_small_factor():
    """Identity convolutions and a spike: a bound that were larger than it need be by more would fail."""
    expert, side = Expert(1, 1, 1, 1, 1).double(), 64
    for parameter in expert.parameters():
        parameter.zero_()
    for layer in (expert.project_in, expert.conv1, expert.conv2, expert.project_out):
        layer.weight[0, 0, layer.weight.shape[2] // 2, layer.weight.shape[3] // 2] = 1e3 if layer is expert.conv1 else 1
    expert.norm1.weight.fill_(1), expert.norm2.weight.fill_(1)
    x = torch.zeros(1, 1, side, side, dtype=torch.float64)
    x[0, 0, 5, 5] = 1
    bound = ExpertBound.of(expert).largest(side * side, affine=False)
    assert bound / 3 < expert(x).abs().max() <= bound  # squeeze-excitation halves it


def bounds_of(count: int) -> list[ExpertBound]:
    return [ExpertBound(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.0]), 4) for _ in range(count)]


def test_skipped_experts_share_one_tolerance():
    largest = bounds_of(1)[0].largest(100, affine=False)
    assert largest == pytest.approx(1.02 * 20)
    share = TOLERANCE / largest

    def run(gates, maps=None):
        maps = None if maps is None else torch.tensor(maps)[None, :, None, None].expand(1, -1, 2, 2)
        return experts_to_run(bounds_of(len(gates)), torch.tensor([gates]), maps, 100, False)

    assert run([0.9 * share, 1.0]) == [1]
    assert run([1.1 * share, 1.0]) == [0, 1]
    assert run([0.6 * share, 0.6 * share, 1.0]) in ([1, 2], [0, 2])  # both would exceed it together
    assert run([0.4 * share, 0.4 * share, 0.0]) == []
    assert run([1.0, 1.0], [0.0, 0.5 * share]) == []


@torch.no_grad()
def test_skipping_leaves_the_eight_bits_alone(make_net, image):
    """A gate that is all but closed: the expert does not run, and the prediction moves by less than the tolerance."""
    net = make_net()
    net.gate.mlp[2].bias[1] = -30.0
    net.gate.mlp[2].weight[1] = 0.0
    engine, y = Engine(net), image(1, 3, 16, 16)
    found, full = predict(engine, y), predict(engine, y, skipping=False)
    assert found.ran == (0, 2, 3) and full.ran == (0, 1, 2, 3)
    assert (found.prediction - full.prediction).abs().max() <= TOLERANCE
    net.gate.mlp[2].bias[1] = -8.0  # 1e-4 or so: it may be seen, it must run
    assert predict(Engine(net), y).ran == (0, 1, 2, 3)


@torch.no_grad()
def test_an_expert_runs_if_any_image_of_the_batch_needs_it(image):
    gates = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert experts_to_run(bounds_of(2), gates, None, 100, False) == [0, 1]
    assert experts_to_run(bounds_of(2), gates[:1], None, 100, False) == [1]
