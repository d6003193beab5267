"""The loss terms against the golden file and against hand-computed cases."""

import math

import pytest
import torch
from safetensors.torch import load_file

from f2d.training import losses


@pytest.fixture(scope="module")
def golden(shared):
    return load_file(shared / "golden" / "f2dnet_small.safetensors")


def term(golden, name):
    return pytest.approx(golden[f"loss_{name}"].item(), rel=1e-4)


def test_golden_terms_from_the_golden_tensors(golden):
    """Each term from the file's own network outputs: a wrong formula cannot hide behind a right network."""
    labels, gates, t = golden["labels"], golden["gates"], golden["t"]
    mu = golden["clean"]
    mu_hat = golden["x_t"] + golden["prediction"]
    assert losses.charbonnier(golden["prediction"], mu - golden["x_t"]).item() == term(golden, "main")
    assert losses.charbonnier(mu_hat, mu).item() == term(golden, "recon")
    assert losses.classification(golden["factor_logits"], labels).item() == term(golden, "cls")
    assert losses.presence(golden["factor_weights"], labels).item() == term(golden, "w")
    constant = labels[:, :, None, None].expand_as(golden["maps"])
    assert losses.map_supervision(golden["maps"], constant).item() == term(golden, "m")
    assert losses.balance(gates, labels, present_only=False).item() == term(golden, "balance")
    prior = losses.time_prior(labels, t, 100)
    torch.testing.assert_close(prior, golden["alpha_target"])
    assert losses.gate_prior(gates, prior).item() == term(golden, "alpha")
    assert losses.frequency(mu_hat, mu).item() == term(golden, "freq")


def test_charbonnier_of_a_known_difference():
    assert losses.charbonnier(torch.full((1, 3, 2, 2), 3e-3), torch.full((1, 3, 2, 2), -1e-3)).item() == pytest.approx(
        1e-3 * math.sqrt(17), rel=1e-5
    )


def test_balance_looks_only_at_the_factors_present():
    """Two factors, each carried as often as it is needed: nothing to balance, however many others are absent."""
    labels = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    gates = torch.tensor([[0.4, 0.1, 0.4, 0.1], [0.4, 0.1, 0.4, 0.1]])
    assert losses.balance(gates, labels).item() == pytest.approx(0.0, abs=1e-12)
    assert losses.balance(gates, labels, present_only=False).item() > 1.0  # saturated by the absent ones


def test_balance_is_the_squared_coefficient_of_variation():
    labels, gates = torch.ones(1, 2), torch.tensor([[0.75, 0.25]])
    assert losses.balance(gates, labels).item() == pytest.approx(0.125 / 0.25)  # var 2·0.25² / 1, mean 0.5


@pytest.mark.parametrize(("t", "stage"), [(0, [0.3, 0.3, 1, 1]), (33, [0.3, 1, 0.5, 0.5]), (67, [1, 0.5, 0.3, 0.3])])
def test_time_prior_of_all_factors(t, stage):
    prior = losses.time_prior(torch.ones(1, 4), torch.tensor([t]), 100)
    torch.testing.assert_close(prior[0], torch.tensor(stage) / sum(stage))


def test_time_prior_without_factors_is_zero_not_nan():
    assert torch.equal(losses.time_prior(torch.zeros(1, 4), torch.tensor([5]), 100), torch.zeros(1, 4))


@pytest.mark.parametrize("shape", [(2, 3), (2, 5), (4,)])
def test_time_prior_is_of_four_factors(shape):
    with pytest.raises(ValueError, match=r"labels are .*give \[B, 4\].*low, haze, rain and snow"):
        losses.time_prior(torch.ones(shape), torch.tensor([5, 5]), 100)


def test_map_target_says_that_and_where():
    maps = torch.tensor([0.0, 0.1, 0.2]).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    target = losses.map_target(maps, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(target[0, 0, 0], torch.tensor([0.5, 0.75, 1.0]))
    assert torch.equal(target[0, 1], torch.zeros(1, 3))
