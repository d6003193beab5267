"""`f2d figures` on experts: maps beside ground-truth masks, and effective gates of present and absent factors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="needs the [eval] extra")

from f2d.degradation import CATEGORIES, FACTORS
from f2d.engine.restorer import Restored, Restorer
from f2d.evaluation.case import Case
from f2d.evaluation.folder import EvaluationFolder
from f2d.evaluation.record import Record
from f2d.figures.experts import Experts, acting, gates, maps, weights
from f2d.figures.panels import Crop, Shown
from tests.data.conftest import picture, save

MASK = torch.tensor([[0.0, 0.1], [0.2, 0.4]])


def stub(map_: torch.Tensor, spatial: bool = True) -> Experts:
    """A model whose rain expert has this map."""
    return Experts(lambda image: Restored(image, 0.0, ("rain",), map_[None], torch.ones(1), torch.ones(1)), spatial)


def shown(**masks: torch.Tensor) -> Shown:
    return Shown("rain/a", torch.zeros(3, 2, 2), None, {}, masks)


def test_maps_stand_beside_the_mask_on_its_scale():
    models = {"right": stub(MASK), "wrong": stub(0.4 - MASK), "whole": stub(torch.ones(2, 2), spatial=False)}
    figure = maps(models, [shown(rain=MASK)])
    cells = [axis for axis in figure.axes if axis.images][:5]
    assert [axis.get_title() for axis in cells] == ["input", "ground truth", "right", "wrong", "whole"]
    drawn = [np.asarray(axis.images[0].get_array()) for axis in cells]
    np.testing.assert_allclose(drawn[1], MASK / 0.4)
    np.testing.assert_allclose(drawn[2], MASK / 0.4)
    np.testing.assert_allclose(drawn[3], 1 - MASK / 0.4, atol=1e-6)
    assert [axis.get_xlabel() for axis in cells[1:]] == [
        "rain, largest 0.40",
        "r = 1.00",
        "r = -1.00",
        "no map, m = 1",
    ]
    cropped = maps({"right": stub(MASK)}, [shown(rain=MASK)._replace(crop=Crop(1, 0, 1, 2))])
    np.testing.assert_allclose(cropped.axes[2].images[0].get_array(), MASK[:, 1:] / 0.4)
    assert cropped.axes[2].get_xlabel() == "r = 1.00"  # of the whole map
    with pytest.raises(ValueError, match="needs ground-truth masks"):
        maps(models, [shown()])


def test_an_image_is_analysed_once_for_its_gates_and_its_maps(model, monkeypatch):
    calls = []
    call, explain = Restorer.__call__, Restorer.explain
    monkeypatch.setattr(Restorer, "__call__", lambda *args, **options: calls.append(1) or call(*args, **options))
    monkeypatch.setattr(Restorer, "explain", lambda *args: calls.append(1) or explain(*args))
    restorer, degraded = Restorer.load(model, precision="float32"), torch.from_numpy(picture(1)).permute(2, 0, 1) / 255
    found, experts = restorer.explain(degraded), Experts.of(restorer)
    calls.clear()
    case = Shown("rain/a", degraded, None, {}, {"rain": torch.rand(degraded.shape[1:])})
    axes = [axis for axis in gates(experts, [case]).axes if axis.images][1 : 1 + len(FACTORS)]
    for k, axis in enumerate(axes):
        np.testing.assert_allclose(axis.images[0].get_array(), found.gates[k] * found.maps[k], atol=1e-5)
        assert axis.get_title() == FACTORS[k] and axis.get_xlabel() == f"gate {found.gates[k]:.2f}"
    maps({"ours": experts}, [case])
    assert len(axes) == len(FACTORS) and len(calls) == 1


def evaluated(category: str, scene: str, factors: tuple[str, ...], **effective: float) -> tuple[Case, Record]:
    name = f"{category}/{scene}"
    return Case(name, category, None, None, 0, factors), Record(name, category, effective=effective, scene=scene)


SEEN = [
    evaluated("rain", "a", ("rain",), rain=0.2, low=0.01),
    evaluated("rain", "b", ("rain",), rain=0.4, low=0.03),
    evaluated("low", "a", ("low",), rain=0.06, low=0.5),
    evaluated("low", "b", ("low",), rain=0.06, low=0.5),
    evaluated("unknown", "c", (), rain=0.9, low=0.9),
]


def test_effective_gates_are_averaged_where_a_factor_is_present_and_where_not():
    rain, low = acting(SEEN)
    assert (rain.factor, low.factor) == ("rain", "low")
    assert rain.present == pytest.approx((0.3, 0.2, 0.4)) and rain.absent == pytest.approx((0.06, 0.06, 0.06))
    assert low.present == pytest.approx((0.5, 0.5, 0.5)) and low.absent == pytest.approx((0.02, 0.01, 0.03))
    assert acting([SEEN[0]]) == []  # nothing to compare with


def test_a_panel_has_the_means_and_their_ratio():
    figure = weights({"ours": acting(SEEN), "without": []})
    (axis,) = figure.axes
    assert axis.get_title() == "ours"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["rain\n5.0x", "low\n25.0x"]
    present, absent = axis.containers
    np.testing.assert_allclose(present.lines[0].get_ydata(), [0.3, 0.5])
    np.testing.assert_allclose(absent.lines[0].get_ydata(), [0.06, 0.02])
    (equal,) = [line for line in axis.lines if line.get_label() == "all equal, no maps"]
    assert equal.get_ydata()[0] == 1 / 2
    three = [(case, replace(record, effective=record.effective | {"haze": 0.1})) for case, record in SEEN]
    (axis,) = weights({"ours": acting(three)}).axes
    (equal,) = [line for line in axis.lines if line.get_label() == "all equal, no maps"]
    assert equal.get_ydata()[0] == pytest.approx(1 / 3)  # of three experts, though haze is never present
    with pytest.raises(ValueError, match="no method has effective gates"):
        weights({"without": []})


def test_an_evaluation_stores_the_effective_gates(f2d, model, tmp_path):
    save(picture(1), tmp_path / "photos" / "a.png")
    out = tmp_path / "out"
    assert (
        f2d("eval", model, "--data", f"composites={tmp_path / 'photos'}", "-o", out, "--measures", "mae").exit_code == 0
    )
    folder, restorer = EvaluationFolder.open(out), Restorer.load(model)
    name = f"{CATEGORIES[2]}/a"
    case = Case(name, CATEGORIES[2], None, tmp_path / "photos" / "a.png", 2000)
    found = restorer(case.load().degraded, seed=0)
    expected = (found.gates * found.maps.mean((1, 2))).tolist()
    assert folder.record(name).effective == pytest.approx(dict(zip(FACTORS, expected)), rel=1e-5)
    assert "effective gate rain" in (out / "results.csv").read_text().splitlines()[0]


def test_effective_gates_are_compared_on_the_images_that_all_methods_have(f2d, model, tmp_path, monkeypatch):
    """Of one model, evaluated twice, a panel was of all images and the other of a few."""
    for i in range(3):
        save(picture(i), tmp_path / "photos" / f"{i}.png")
    command = ("eval", model, "--data", f"composites={tmp_path / 'photos'}", "--measures", "mae")
    assert f2d(*command, "-o", tmp_path / "all").exit_code == 0
    assert f2d(*command, "-o", tmp_path / "few", "--limit", 2).exit_code == 0
    drawn = []
    monkeypatch.setattr("f2d.figures.draw.weights", lambda found: drawn.append(found) or weights(found))
    done = f2d("figures", tmp_path / "all", tmp_path / "few", "-o", tmp_path / "out", "--case", "low/1", "--steps", 2)
    assert done.exit_code == 0, done.output
    (panels,) = drawn
    everything, few = panels.values()
    assert everything == few and len(few) == len(FACTORS)


def test_the_axis_states_the_least_value_that_is_drawn():
    seen = [evaluated("rain", "a", ("rain",), rain=0.4, low=1e-6), evaluated("low", "a", ("low",), rain=0.1, low=0.5)]
    (axis,) = weights({"ours": acting(seen)}).axes
    np.testing.assert_allclose(axis.containers[1].lines[0].get_ydata(), [0.1, 1e-4])
    assert axis.get_ylabel() == "mean gate x map, at least 0.0001"
