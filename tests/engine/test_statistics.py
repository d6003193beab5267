"""Global quantities: recorded and replayed they give the same image, and a tile what it would be in the whole."""

import pytest
import torch

from f2d import restore_tensor
from f2d.engine import Engine, Statistics
from f2d.engine.layers import Norm
from f2d.engine.statistics import moments


@pytest.fixture
def engine(make_net) -> Engine:
    # wide enough that no squeeze-excitation is dead behind its ReLU
    return Engine(make_net(expert_width=32).double(), torch.float64)


def predict(engine: Engine, y: torch.Tensor, statistics: Statistics, t: int = 0) -> torch.Tensor:
    with torch.no_grad():
        predictor = engine.predictor(statistics=statistics, skipping=False)
        analysis = predictor.analyse(y)
        return predictor.velocity(analysis.enhanced, analysis, t).prediction


def test_recording_and_replaying_change_nothing(engine, image):
    y, recorded = image(2, 3, 9, 14, dtype=torch.float64), Statistics.recording()
    measured = predict(engine, y, Statistics())
    torch.testing.assert_close(predict(engine, y, recorded), measured, rtol=0, atol=1e-11)
    torch.testing.assert_close(predict(engine, y, recorded.replaying()), measured, rtol=0, atol=1e-11)
    assert recorded.values and not any(value.shape[-1] in (9, 14) for value in recorded.values.values())


def test_replayed_values_are_used_all_of_them(engine, image):
    """Changing any single recorded value changes the prediction: none is measured on the sly, none is idle."""
    y, recorded = image(1, 3, 8, 8, dtype=torch.float64), Statistics.recording()
    expected = predict(engine, y, recorded)
    names = {name for _, name in recorded.values}
    assert {"enhancer.gate", "parser.pooled", "gates", "mid_attention.matrix", "norm_out.moments"} <= names
    assert sum(name.endswith("norm2.mean") for name in names) == 4
    for key in recorded.values:
        if key[1] == "parser.pooled":
            continue  # it feeds the gates, which are replayed themselves
        other = recorded.replaying()
        other.values[key] = other.values[key] * 1.5
        assert (predict(engine, y, other) - expected).abs().max() > 1e-6, key


def test_a_tile_inside_the_image_is_what_it_was_in_the_whole(make_net, image):
    """Away from the cut by the network's reach, a tile with the whole image's statistics equals the whole."""
    net = make_net(bottleneck_blocks=0, enhancer_width=None).double()
    engine, y = Engine(net, torch.float64), image(1, 3, 96, 160, dtype=torch.float64)
    recorded = Statistics.recording()
    whole = predict(engine, y, recorded)
    tile = predict(engine, y[..., 32:160], recorded.replaying())
    torch.testing.assert_close(tile[..., 48:], whole[..., 80:], rtol=0, atol=1e-10)
    alone = predict(engine, y[..., 32:160], Statistics())
    assert (alone[..., 48:] - whole[..., 80:]).abs().max() > 1e-3


def test_steps_are_kept_apart(engine, image):
    y, recorded = image(1, 3, 8, 8), Statistics.recording()
    expected = restore_tensor(engine.predictor(statistics=recorded), y, steps=3, seed=0)
    assert {step for step, _ in recorded.values} == {None, 0, 33, 66}
    replayed = restore_tensor(engine.predictor(statistics=recorded.replaying()), y, steps=3, seed=0)
    torch.testing.assert_close(replayed, expected, rtol=0, atol=1e-5)
    with pytest.raises(KeyError, match=r"moments at step 50 was not recorded"):
        restore_tensor(engine.predictor(statistics=recorded.replaying()), y, steps=2, seed=0)


def test_only_a_recording_can_be_replayed():
    with pytest.raises(ValueError, match="nothing was recorded"):
        Statistics().replaying()


def test_map_changes_every_value():
    recorded = Statistics.recording()
    recorded.at(0).of("a", lambda: torch.arange(4.0).view(2, 2))
    one = recorded.map(lambda value: value[:1])
    assert torch.equal(one.at(0).of("a", lambda: pytest.fail("measured")), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("film", [False, True])
def test_norm_is_group_norm_in_every_mode(silu, film):
    torch.manual_seed(0)
    plain = torch.nn.GroupNorm(3, 12).double()
    torch.nn.init.normal_(plain.weight), torch.nn.init.normal_(plain.bias)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64) * 3 + 50
    scale, shift = torch.randn(2, 12, dtype=torch.float64)
    expected = plain(x)
    if film:
        expected = expected * (1 + scale[:, None, None]) + shift[:, None, None]
    expected = torch.nn.functional.silu(expected) if silu else expected
    layer, recorded = Norm(plain, "n", silu), Statistics.recording()
    for statistics in (Statistics(), recorded, recorded.replaying() if recorded.values else recorded):
        out, mean = layer(x, statistics, (scale, shift) if film else None, return_mean=True)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-11)
        torch.testing.assert_close(mean, expected.mean(dim=(2, 3)), rtol=0, atol=1e-11)


def test_moments_far_from_zero():
    """A mean of a thousand standard deviations, in float32."""
    x = torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1000
    mean, rstd = moments(x.float(), 2, 1e-5)
    exact_mean, exact_rstd = moments(x, 2, 1e-5)
    torch.testing.assert_close(rstd.double(), exact_rstd, rtol=1e-3, atol=0)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=1e-6, atol=0)
