"""The recipes of the failure modes: which supervision each one has, and that each one trains."""

import pytest
import torch

from f2d.data.sample import Batch, Sample, finish, stack
from f2d.degradation import CATEGORIES, FACTORS
from f2d.nets.models import build, config_of
from f2d.training.objectives import Loss, objective_of
from f2d.training.recipe import Recipe

RECIPES = ("lite", "deterministic", "image_level", "image_level_supervised")


@pytest.fixture(scope="module")
def batch() -> Batch:
    draws = torch.Generator().manual_seed(0)
    samples = [Sample(torch.rand(3, 32, 32, generator=draws), None, CATEGORIES[4 + i], i) for i in range(4)]
    return finish(stack(samples), FACTORS)


@pytest.fixture(scope="module")
def loss_of():
    """loss_of(recipe, batch) -> the loss of f2d-lite's network, with its gradients; weights are the same each time."""
    networks = {}

    def loss(name: str, batch: Batch) -> Loss:
        recipe = Recipe.load(name)
        if name not in networks:
            torch.manual_seed(1)
            networks[name] = build(config_of(recipe.model, recipe.network))
        net = networks[name]
        net.zero_grad()
        found = objective_of(net, recipe.losses, recipe.one_call_fraction)(net, batch)
        found.total.backward()
        return Loss(found.total.detach(), found.terms)

    loss.networks = networks
    return loss


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_gradients(name, batch, loss_of):
    found = loss_of(name, batch)
    gradients = [p.grad for p in loss_of.networks[name].parameters() if p.grad is not None]
    assert torch.isfinite(found.total) and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0
    assert ("maps" in found.terms, "localisation" in found.terms) == (("image_level" not in name,) * 2)


@pytest.mark.parametrize("name", RECIPES)
def test_only_networks_with_maps_see_the_ground_truth_masks(name, batch, loss_of):
    other = batch._replace(maps=batch.maps.flip(-1) * 0.5)
    same = float(loss_of(name, batch).total) == float(loss_of(name, other).total)
    assert same == ("image_level" in name)


@pytest.mark.parametrize("name", RECIPES)
def test_unsupervised_routing_does_not_see_the_labels(name, batch, loss_of):
    """Supervised gates are selective by construction, so the failure mode is shown without supervision as well."""
    other = batch._replace(labels=1 - batch.labels)
    same = float(loss_of(name, batch).total) == float(loss_of(name, other).total)
    assert same == (name == "image_level")
