"""Small photographs, networks and recipes: a run takes a second."""

from pathlib import Path

import pytest
import torch

from f2d.images import to_picture
from f2d.nets import F2DNet
from f2d.nets.resflow import ResFlowConfig, ResFlowNet
from f2d.training.recipe import Recipe, Stage
from tests.nets.conftest import golden, golden_net, golden_weights  # noqa: F401, fixtures
from tests.nets.small import TINY, small_config


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """Six smooth pictures of 56x48."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(6):
        picture(i).save(folder / f"{i}.png")
    return folder


def picture(seed: int, height: int = 48, width: int = 56):
    coarse = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    return to_picture(torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0])


NETWORKS = {
    "f2d": lambda: F2DNet(TINY),
    "deterministic": lambda: F2DNet(small_config(theta="straight", sigma2="none", target="FLOW", patch=2)),
    "image_level": lambda: F2DNet(small_config(spatial_maps=False, patch=2)),
    "learned": lambda: F2DNet(small_config(learned_schedule=True, num_steps=4, enhancer_width=None, patch=2)),
    "three": lambda: F2DNet(small_config(factors=("noise", "haze", "rain"), enhancer_width=None, patch=2)),
    "resflow": lambda: ResFlowNet(
        ResFlowConfig(channels=8, multipliers=(1, 2), blocks=(1, 1), groups=4, time_dim=16, patch=2, adaptor_width=4)
    ),
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """weights("f2d") -> a folder with a network small enough to train in a second, for a recipe to start from."""
    home = tmp_path_factory.mktemp("networks")

    def folder(kind: str = "f2d") -> str:
        if not (home / kind).exists():
            torch.manual_seed(0)
            NETWORKS[kind]().save_pretrained(home / kind)
        return str(home / kind)

    return folder


@pytest.fixture(scope="session")
def small(weights):
    """small(kind, **changes) -> a Recipe of eight steps on four crops of 32 pixels, checked once in the middle."""

    def recipe(kind: str = "f2d", **changes) -> Recipe:
        values = {
            "initial": weights(kind),
            "stages": (Stage(0, 32, 4),),
            "steps": 8,
            "validate_every": 4,
            "validation_images": 2,
            "warmup_steps": 2,
            "precision": "32-true",
            "workers": 0,
        }
        return Recipe(**(values | changes))

    return recipe
