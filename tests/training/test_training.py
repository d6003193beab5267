"""Training: recipes, samples that depend on their index alone, a short fit, and resuming."""

import pickle
from pathlib import Path

import pytest
import torch

from f2d.images import to_picture
from f2d.nets import F2DNet
from f2d.training.recipe import Recipe
from tests.nets.small import TINY, small_config

pytest.importorskip("lightning", reason="needs the [train] extra")
from f2d.training.data import CleanCrops, collate, find_photographs
from f2d.training.fit import fit
from f2d.training.module import TransportModule


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(0)
    for i in range(6):
        smooth = torch.nn.functional.interpolate(
            torch.rand(1, 3, 5, 6, generator=generator), (48, 56), mode="bilinear"
        )[0]
        to_picture(smooth).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory) -> Path:
    """A network small enough to train in seconds, as a folder that a recipe starts from."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    F2DNet(TINY).save_pretrained(folder)
    return folder


def small_recipe(weights: Path, **changes) -> Recipe:
    values = {
        "initial": str(weights),
        "crop": 32,
        "batch_size": 4,
        "steps": 8,
        "validate_every": 4,
        "validation_images": 2,
        "warmup_steps": 2,
        "precision": "32-true",
        "workers": 0,
    }
    return Recipe(**(values | changes))


def test_a_sample_depends_on_its_index_alone(photographs):
    paths = find_photographs(photographs, 32)
    crops, again = (CleanCrops(paths, 32, seed=3) for _ in range(2))
    for index in (0, 7, 10**9):
        a, b = crops[index], again[index]
        assert torch.equal(a[0], b[0]) and a[1:] == b[1:]
    assert not torch.equal(crops[0][0], crops[1][0])
    assert not torch.equal(crops[0][0], CleanCrops(paths, 32, seed=4)[0][0])
    alone, batch = collate([crops[1]]), collate([crops[0], crops[1], crops[2]])
    assert torch.equal(alone.degraded[0], batch.degraded[1]) and torch.equal(alone.maps[0], batch.maps[1])


def test_category_frequencies_are_followed(photographs):
    crops = CleanCrops(find_photographs(photographs, 32), 32, 0, {"rain": 50.0})
    drawn = [crops[i][1] for i in range(60)]
    assert 40 <= drawn.count("rain") <= 59  # expected 50/60 · 60 = 50


def test_data_errors_come_before_any_work(photographs, tmp_path):
    with pytest.raises(ValueError, match="no photographs below"):
        find_photographs(tmp_path, 32)
    with pytest.raises(ValueError, match="56x48, smaller than the crop of 64"):
        find_photographs(photographs, 64)
    with pytest.raises(ValueError, match="unknown categories fog; there are low, haze"):
        CleanCrops([], 32, 0, {"fog": 1.0})


def test_a_fit_lowers_the_loss_and_leaves_its_files(photographs, small_weights, tmp_path):
    start = F2DNet.from_pretrained(small_weights)
    recipe = small_recipe(small_weights, steps=61, validate_every=30, learning_rate=5e-3)  # the last step counts too
    trained = fit(recipe, photographs, tmp_path / "run")
    batch = collate([CleanCrops(find_photographs(photographs, 32), 32, seed=9)[i] for i in range(16)])

    def error(net: F2DNet) -> float:
        with torch.no_grad():
            y, mu = batch.degraded * 2 - 1, batch.clean * 2 - 1
            return (net(y, y, 0).prediction - (mu - y)).square().mean().item()

    assert error(trained) < 0.8 * error(start)
    assert Recipe.load(str(tmp_path / "run" / "recipe.yaml")) == recipe
    saved = F2DNet.from_pretrained(tmp_path / "run" / "weights")
    for a, b in zip(saved.parameters(), trained.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "run" / "history.json").read_text().count('"step"') == 2
    files = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert files == {"recipe.yaml", "history.json", "last.ckpt", "config.json", "model.safetensors"}


def test_a_run_is_not_overwritten_and_resumes_bit_for_bit(photographs, small_weights, tmp_path, monkeypatch):
    recipe = small_recipe(small_weights, steps=8)
    whole = fit(recipe, photographs, tmp_path / "whole")

    def power_cut(self, index):
        if index >= 6 * recipe.batch_size:
            raise RuntimeError("power cut")
        return read(self, index)

    read = CleanCrops.__getitem__
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(CleanCrops, "__getitem__", power_cut)
        fit(recipe, photographs, tmp_path / "cut")
    with pytest.raises(FileExistsError, match="holds a run already"):
        fit(recipe, photographs, tmp_path / "cut")
    resumed = fit(recipe, photographs, tmp_path / "cut", resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "cut" / "history.json").read_text() == (tmp_path / "whole" / "history.json").read_text()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps({"a": 1}), "archive without a state"])
def test_a_damaged_state_is_one_clear_error(content, photographs, small_weights, tmp_path):
    last = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        last.write_bytes(content)
    else:
        torch.save({"weights": torch.ones(2)}, last)
    with pytest.raises(ValueError, match=r"last\.ckpt is no state to resume from \(.+\); start again"):
        fit(small_recipe(small_weights), photographs, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir() if path != small_weights] == ["last.ckpt"]


def test_a_network_of_other_factors_is_refused(photographs, tmp_path):
    F2DNet(small_config(factors=("noise", "haze", "rain"))).save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match=r"three has the factors noise, haze, rain; .*low, haze, rain, snow"):
        fit(small_recipe(tmp_path / "three"), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_maps_there_is_no_map_loss(photographs, small_weights):
    """Maps that are ones give a constant, which would only hide the other terms in the sum."""
    batch = collate([CleanCrops(find_photographs(photographs, 32), 32, seed=0)[i] for i in range(2)])
    for spatial in (True, False):
        net = F2DNet(small_config(spatial_maps=spatial)).train()
        module = TransportModule(small_recipe(small_weights), net, batch)
        seen = {}
        module.log_dict = lambda values, prog_bar, seen=seen: seen.update(values)
        module.log = lambda *_, **__: None
        total = module.training_step(batch, 0)
        assert ("maps" in seen) == spatial and total.isfinite()


def test_a_recipe_is_written_in_one_piece(photographs, small_weights, tmp_path, monkeypatch):
    def half(self, text):
        self.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="disk full"):
        fit(small_recipe(small_weights), photographs, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
