"""`f2d eval` compares the maps of a model with the ground-truth masks of composites."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.degradation import CATEGORIES, FACTORS, degrade
from f2d.engine.restorer import Restorer
from f2d.nets import F2DNet
from tests.data.conftest import picture, save
from tests.nets.small import resflow_net, small_config

MEASURES = ("--measures", "mae")


@pytest.fixture
def photos(tmp_path) -> Path:
    save(picture(1), tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def composites(f2d, method, photos: Path, out: Path) -> Path:
    done = f2d("eval", method, "--data", f"composites={photos}", "-o", out, *MEASURES)
    assert done.exit_code == 0, done.output
    return out


def test_correlations_are_those_of_the_maps_with_the_masks_of_the_synthesis(f2d, model, photos, tmp_path):
    out = composites(f2d, model, photos, tmp_path / "out")
    with open(out / "results.csv", newline="") as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    restorer, clean = Restorer.load(model), np.array(Image.open(photos / "a.png"))
    for c, category in enumerate(CATEGORIES):
        made = degrade(clean, category, seed=1000 * c)
        maps = restorer(made.image, seed=0).maps
        for k, factor in enumerate(FACTORS):
            found = rows[category][f"map correlation {factor}"]
            if factor in category.split("_"):
                expected = np.corrcoef(maps[k].numpy().ravel(), made.maps[k].numpy().ravel())[0, 1]
                assert float(found) == pytest.approx(expected, abs=1e-5), (category, factor)
                threshold = 0.1 if factor in ("rain", "snow") else made.maps[k].double().mean()
                share = float((made.maps[k] > threshold).double().mean())
                assert float(rows[category][f"degraded share {factor}"]) == pytest.approx(share), (category, factor)
            else:
                assert found == ""
    by_factor = json.loads((out / "results.json").read_text())["localisation"]
    assert list(by_factor) == list(FACTORS)
    for factor, found in by_factor.items():
        of_pictures = [float(row[f"map correlation {factor}"]) for row in rows.values() if factor in row["category"]]
        assert found["images"] == len(of_pictures)
        assert found["correlation"] == pytest.approx(np.mean(of_pictures))
    assert "## Maps of the experts" in (out / "results.md").read_text()


def test_methods_without_maps_have_no_rows(f2d, model, photos, tmp_path):
    torch.manual_seed(0)
    F2DNet(small_config(spatial_maps=False)).save_pretrained(tmp_path / "image-level")
    resflow_net().save_pretrained(tmp_path / "resflow")
    outputs = composites(f2d, model, photos, tmp_path / "out") / "restored"
    for method in (tmp_path / "image-level", tmp_path / "resflow", outputs):
        out = composites(f2d, method, photos, tmp_path / "without" / method.name)
        assert json.loads((out / "results.json").read_text())["localisation"] == {}
        assert "Maps of the experts" not in (out / "results.md").read_text()
        assert "map correlation" not in (out / "results.csv").read_text()
