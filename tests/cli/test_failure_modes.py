"""The failure modes in `f2d eval`: one call and several, with and without noise, and gates without maps."""

import json

import pytest
import torch

from f2d.degradation import FACTORS
from f2d.evaluation.folder import EvaluationFolder
from f2d.metrics.selectivity import EPSILON
from f2d.nets import F2DNet
from f2d.training.recipe import Recipe
from tests.data.conftest import picture, save
from tests.nets.small import small_config


@pytest.fixture
def evaluated(f2d, tmp_path):
    """evaluated(recipe, steps) -> the evaluation of a small random network with that recipe's process and routing."""
    save(picture(1), tmp_path / "photos" / "a.png")

    def evaluate(name: str, steps: int) -> tuple[EvaluationFolder, dict]:
        torch.manual_seed(3)
        net = F2DNet(small_config(**Recipe.load(name).network))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        net.save_pretrained(tmp_path / name)
        out = tmp_path / f"{name}-{steps}"
        data = f"composites={tmp_path / 'photos'}"
        measures = ("--measures", "sharpness,niqe,spread")
        done = f2d("eval", tmp_path / name, "--data", data, "-o", out, "--steps", steps, *measures)
        assert done.exit_code == 0, done.output
        return EvaluationFolder.open(out), json.loads((out / "results.json").read_text())

    return evaluate


@pytest.mark.parametrize("name", ["lite", "deterministic", "image_level", "image_level_supervised"])
def test_each_can_be_evaluated_at_several_steps(name, evaluated):
    """Samples of a process with noise differ between seeds; the deterministic flow has one answer."""
    _, results = evaluated(name, 4)
    spread = results["rows"][-1]["values"]["spread"]
    assert spread == 0 if name == "deterministic" else spread > 0.1
    assert set(results["selectivity"]) == {"present_absent", "max_min", "inside_masks"}
    assert bool(results["localisation"]) == (name in ("lite", "deterministic"))


def test_image_level_selectivity_is_that_of_the_gates(evaluated):
    """With m = 1 the effective gate is the gate itself, inside the masks as well."""
    folder, results = evaluated("image_level", 1)
    above, below = [], []
    for name in folder.names():
        record, present = folder.record(name), name.partition("/")[0].split("_")
        assert record.effective == pytest.approx(record.gates)
        sides = [[record.gates[f] for f in FACTORS if (f in present) == side] for side in (True, False)]
        above.append(sum(sides[0]) / len(sides[0]))
        below.append(sum(sides[1]) / len(sides[1]))
    for definition in ("present_absent", "inside_masks"):
        expected = sum(above) / (sum(below) + len(below) * EPSILON)
        assert results["selectivity"][definition]["ratio"] == pytest.approx(expected, rel=1e-5)
