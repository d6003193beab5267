"""The straight flow against automatic differentiation of its path, and trajectories of a perfect network."""

import pytest
import torch

from f2d.transport import LogNormalSchedule, StraightFlow

SEEDS = torch.tensor([1, 2, 3])


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_draw_lies_on_the_grid_and_its_target_is_the_derivative():
    y, mu = image(3, 3, 4, 5), image(3, 3, 4, 5, seed=1)
    draw = StraightFlow(20).draw(y, mu, torch.tensor([0.0, 0.29, 0.76]), SEEDS)
    assert draw.time.tolist() == [0, 6, 15] and draw.auxiliary is None and draw.weight is None

    def path(t: torch.Tensor) -> torch.Tensor:
        t = t[:, None, None, None]
        return (1 - t) * y.double() + t * mu.double()

    position = draw.time.double() / 20
    x_t, velocity = torch.func.jvp(path, (position,), (torch.ones_like(position),))
    torch.testing.assert_close(draw.state.double(), x_t, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(draw.target.double(), velocity, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 100, 1000])
def test_positions_on_the_grid_keep_their_time(num_steps):
    """k / T · T in float32 may lie just below k: rounding, not truncation."""
    index = torch.arange(num_steps)
    images = torch.zeros(num_steps, 3, 1, 1)
    assert torch.equal(StraightFlow(num_steps).draw(images, images, index / num_steps, index).time.long(), index)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 100])
def test_a_perfect_network_restores_exactly(steps):
    flow, y, mu, told = StraightFlow(), image(2, 3, 5, 7), image(2, 3, 5, 7, seed=1), []

    def oracle(x, auxiliary, k):
        assert auxiliary is None
        torch.testing.assert_close(x, (1 - k / 100) * y + k / 100 * mu, rtol=0, atol=1e-5)
        told.append(k)
        return mu - y

    restored = flow.restore(oracle, y, steps=steps, sampler="euler")
    torch.testing.assert_close(restored, mu, rtol=0, atol=1e-5)
    assert flow.times(steps, "euler") == [*told, 100] == LogNormalSchedule.named().times(steps)
    assert all(isinstance(k, int) for k in told)


def test_a_curved_field_is_integrated_by_euler():
    """dx/dt = -x in 4 steps: x (3/4)⁴."""
    y = image(1, 3, 2, 2)
    restored = StraightFlow().restore(lambda x, auxiliary, k: -x, y, steps=4, sampler="euler")
    torch.testing.assert_close(restored, y * 0.75**4)


def test_clean_is_a_step_to_the_end_with_gradients():
    flow, y, mu = StraightFlow(), image(3, 3, 4, 4), image(3, 3, 4, 4, seed=1)
    draw = flow.draw(y, mu, torch.tensor([0.0, 0.5, 0.99]), SEEDS)
    prediction = draw.target.clone().requires_grad_()
    clean = flow.clean(prediction, draw.state, y, draw.time.long())
    torch.testing.assert_close(clean, mu, rtol=0, atol=1e-6)
    clean.sum().backward()
    torch.testing.assert_close(prediction.grad[:, 0, 0, 0], torch.tensor([1, 0.5, 0.01]))
    torch.testing.assert_close(flow.clean(draw.target[:1], draw.state[:1], y[:1], 0), mu[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_states_are_float32_and_results_images(dtype):
    def predict(x, auxiliary, k):
        assert x.dtype == torch.float32
        return torch.full((1, 3, 4, 4), 5.0, dtype=dtype)

    restored = StraightFlow().restore(predict, image(1, 3, 4, 4).to(dtype), steps=2, sampler="euler", seed=4)
    assert restored.dtype == torch.float32 and (restored == 1).all()


def test_errors():
    flow, y = StraightFlow(10), image(2, 3, 4, 4)
    with pytest.raises(ValueError, match="num_steps is 0"):
        StraightFlow(0)
    for steps in (0, 11):
        with pytest.raises(ValueError, match=f"{steps} steps; give 1 to 10"):
            flow.restore(lambda x, auxiliary, k: x, y, steps=steps, sampler="euler")
    with pytest.raises(ValueError, match="no sampler 'mean'; there is euler"):
        flow.times(4, "mean")
    with pytest.raises(ValueError, match=r"position is \(3,\); give one per image, \[2\]"):
        flow.draw(y, y, torch.zeros(3), SEEDS[:2])
