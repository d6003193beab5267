"""The weights that come with the package restore photographs that neither training nor validation has seen."""

import re
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

import f2d
from f2d import checkpoints, demo
from f2d.images.pictures import open_image
from f2d.nets.models import load_network

CATEGORIES = ("low_haze", "haze_rain", "haze_snow", "low_haze_rain")
CARDS = Path(checkpoints.__file__).parents[1] / "weights"


@pytest.mark.parametrize("name", checkpoints.shipped())
def test_shipped_weights_gain_four_decibels_at_their_default_steps(name):
    restorer = f2d.load(name)
    clean = open_image(demo.sample_photograph("chelsea")).resize((225, 150))
    gains = []
    for seed, category in enumerate(CATEGORIES):
        degraded = f2d.degrade(clean, category, seed=seed).image
        before = peak_signal_noise_ratio(np.asarray(clean), np.asarray(degraded))
        gains.append(peak_signal_noise_ratio(np.asarray(clean), np.asarray(restorer(degraded).image)) - before)
    assert np.mean(gains) > 4


@pytest.mark.parametrize("name", checkpoints.shipped())
def test_the_model_card_states_the_number_of_parameters(name):
    card = (CARDS / name / "README.md").read_text(encoding="utf-8")
    net = load_network(name)
    assert f"{sum(p.numel() for p in net.parameters()):,} parameters" in card


def test_every_shipped_preset_has_a_card_and_a_place_in_the_documentation():
    pages = (Path(__file__).parents[2] / "docs" / "reference").glob("*_card.md")
    included = [name for page in pages for name in re.findall("f2d/weights/(.+?)/", page.read_text(encoding="utf-8"))]
    assert sorted(included) == checkpoints.shipped()
