"""A run from end to end: it learns, leaves its files, refuses what cannot work, and survives losses that are NaN."""

import csv
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from f2d.data import Augment, Mixture, Source, finish, stack
from f2d.nets import F2DNet
from f2d.nets.models import load_network
from f2d.training import losses
from f2d.training.recipe import LossWeights, Recipe, Stage
from tests.training.conftest import NETWORKS, picture
from tests.training.test_refusals import pairs

pytest.importorskip("lightning", reason="needs the [train] extra")
from f2d.training import fit as training
from f2d.training.averaging import Average
from f2d.training.module import DivergenceError, TrainingModule, rate
from f2d.training.objectives import FactorizedObjective, Loss, Objective, objective_of

NEVER = 1000  # validations take longest
fit = partial(training.fit, accelerator="cpu")


def weights_of(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in net.parameters()])


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def steps_seen(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(weights, averaged weights) after every step of the runs of a test."""
    seen, end = [], TrainingModule.on_train_batch_end

    def record(self, outputs, batch, index):
        end(self, outputs, batch, index)
        if (index + 1) % self.recipe.accumulate == 0:
            seen.append((weights_of(self.net), weights_of(self.ema.module)))

    monkeypatch.setattr(TrainingModule, "on_train_batch_end", record)
    return seen


@pytest.fixture
def batches_seen(monkeypatch) -> list:
    """The batches of the runs of a test, part by part."""
    seen, call = [], Objective.__call__

    def record(self, net, batch, total=losses.batch_sum):
        seen.append(batch)
        return call(self, net, batch, total)

    monkeypatch.setattr(Objective, "__call__", record)
    return seen


@pytest.mark.parametrize("kind", ["f2d", "deterministic", "image_level", "resflow"])
def test_a_fit_lowers_the_loss(kind, photographs, small, weights, tmp_path):
    recipe = small(kind, steps=40, validate_every=NEVER, learning_rate=5e-3)
    factors = ("low", "haze", "rain", "snow")
    mixture = Mixture((Source("."),), photographs, factors, Augment(), seed=9)
    batch = finish(stack([mixture[i, 32] for i in range(16)]), factors)

    def loss(net: torch.nn.Module) -> float:
        with torch.no_grad():
            return objective_of(net.eval(), recipe.losses, 0.5)(net, batch).terms["pixel"].item()

    start = loss(load_network(weights(kind)))
    trained = fit(recipe, photographs, tmp_path / "run")
    assert loss(trained) < 0.8 * start
    assert not trained.training
    saved = load_network(tmp_path / "run" / "weights")
    assert torch.equal(weights_of(saved), weights_of(trained))


def test_the_files_of_a_run(photographs, small, tmp_path, monkeypatch):
    """The best validation is the first one, by way of a restoration that is perfect then and never again."""
    averaged = {}

    def restored(self, batch):
        averaged.setdefault(self.global_step, weights_of(self.ema.module))
        return batch.clean if self.global_step == 4 else batch.degraded

    monkeypatch.setattr(TrainingModule, "restored", restored)
    sources = (Source(".", layout="clean", categories={"rain": 1.0, "clear": 1.0}),)
    recipe, out = small(sources=sources), tmp_path / "run"
    trained = fit(recipe, photographs, out)
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    pictures = {"samples/step_0000004.png", "samples/step_0000008.png"}
    networks = {f"{folder}/{file}" for folder in ("weights", "best") for file in ("config.json", "model.safetensors")}
    assert {name for name in found if not name.startswith("tensorboard")} == {
        *("recipe.yaml", "history.json", "losses.csv", "last.ckpt"),
        *pictures,
        *networks,
    }
    assert Recipe.load(str(out / "recipe.yaml")) == recipe
    last, best = (weights_of(F2DNet.from_pretrained(out / folder)) for folder in ("weights", "best"))
    assert torch.equal(last, averaged[8]) and torch.equal(last, weights_of(trained))
    assert torch.equal(best, averaged[4]) and not torch.equal(best, last)

    history = json.loads((out / "history.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity
    assert [row["step"] for row in history] == [4, 8]
    first, second = history
    assert first["psnr"] == 100 and first["ssim"] == pytest.approx(1) and second["gain"] == 0
    assert set(first["categories"]) == {"rain", "clear"} and first["categories"]["clear"]["psnr_in"] == 100
    # a clean photograph that stays as it is would hide what happens to the others
    assert first["psnr_in"] == first["categories"]["rain"]["psnr_in"] < 60
    assert first["gain"] == pytest.approx(100 - first["psnr_in"], abs=1e-3)

    rows = rows_of(out)
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    for step, row in enumerate(rows):
        assert float(row["learning_rate"]) == pytest.approx(recipe.learning_rate * rate(recipe, step), rel=1e-12)


def test_the_learning_rate():
    recipe = Recipe(learning_rate=2e-3, final_learning_rate=2e-5, warmup_steps=4, steps=104)
    assert [rate(recipe, step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert rate(recipe, 4) == 1 and rate(recipe, 54) == pytest.approx((1 + 0.01) / 2)
    assert rate(recipe, 104) == rate(recipe, 1000) == pytest.approx(0.01)
    flat = replace(recipe, decay_steps=20)
    assert [rate(flat, step) for step in (3, 4, 50, 84)] == [1.0] * 4
    assert rate(flat, 94) == pytest.approx((1 + 0.01) / 2) and rate(flat, 104) == pytest.approx(0.01)


def spoilt(kind: str, loss: Loss, net: torch.nn.Module) -> Loss:
    """A loss that is not finite, or one that is and has gradients that are not."""
    if kind == "loss":
        return loss._replace(total=loss.total * math.nan)
    return loss._replace(total=loss.total + (next(net.parameters()).sum() * 0).sqrt())


@pytest.mark.parametrize(("kind", "accumulate"), [("loss", 1), ("gradients", 1), ("loss", 2)])
def test_a_step_that_is_not_finite_changes_nothing(
    kind, accumulate, photographs, small, tmp_path, monkeypatch, steps_seen
):
    call, parts = Objective.__call__, []

    def objective(self, net, batch, total=losses.batch_sum):
        parts.append(batch)
        loss = call(self, net, batch, total)
        # the third step; where it has two parts, its first one alone
        return spoilt(kind, loss, net) if len(parts) == 2 * accumulate + 1 else loss

    monkeypatch.setattr(Objective, "__call__", objective)
    fit(small("learned", steps=4, accumulate=accumulate, validate_every=NEVER), photographs, tmp_path / "run")
    _, (net_2, average_2), (net_3, average_3), (net_4, average_4) = steps_seen
    assert torch.equal(net_2, net_3) and torch.equal(average_2, average_3) and not torch.equal(net_2, average_2)
    assert net_4.isfinite().all() and not torch.equal(net_3, net_4) and not torch.equal(average_3, average_4)
    rows = rows_of(tmp_path / "run")
    assert [row["bad_steps"] for row in rows] == ["0", "0", "1", "1"]
    assert math.isnan(float(rows[2]["loss"])) == (kind == "loss")
    learned = load_network(tmp_path / "run" / "weights").learned_schedule
    assert learned.error.isfinite().all() and float(learned.seen.sum()) == 3 * 4


def test_too_many_steps_that_are_not_finite(photographs, small, tmp_path, monkeypatch):
    call = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", lambda self, net, *rest: spoilt("loss", call(self, net, *rest), net))
    with pytest.raises(DivergenceError, match=r"3 steps had a loss or gradients that are not finite.*learning_rate"):
        fit(small(steps=9, validate_every=NEVER, most_bad_steps=2), photographs, tmp_path / "run")
    assert len(rows_of(tmp_path / "run")) == 2


def test_accumulated_parts_are_one_batch(photographs, small, tmp_path, batches_seen, steps_seen):
    """With losses that are sums over samples: the balance of the gates is over what is seen at once."""
    finals = []
    for accumulate in (1, 2):
        recipe = small(steps=6, validate_every=NEVER, accumulate=accumulate, losses=LossWeights(balance=0))
        fit(recipe, photographs, tmp_path / str(accumulate))
        finals.append((steps_seen[-1][0], steps_seen[0][0]))
    (one, _), (two, _) = finals
    moved = one - weights_of(NETWORKS_START["f2d"]())
    assert (two - one).norm() < 1e-3 * moved.norm()
    assert [len(batch.seeds) for batch in batches_seen] == [4] * 6 + [2] * 12
    for mine, theirs in zip(rows_of(tmp_path / "1"), rows_of(tmp_path / "2"), strict=True):
        assert float(mine["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-4)


def started(kind: str):
    def build():
        torch.manual_seed(0)
        return NETWORKS[kind]()

    return build


NETWORKS_START = {kind: started(kind) for kind in NETWORKS}


def test_the_average_against_its_formula():
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    average = Average(net, decay=0.9)
    wanted = None
    for n in range(200):
        with torch.no_grad():
            net.weight.copy_(torch.randn(2, 3))
        average.update_parameters(net)
        decay = min(0.9, (1 + n) / (10 + n)) if n else 0.0
        current = net.weight.detach().double()
        wanted = current if wanted is None else decay * wanted + (1 - decay) * current
        torch.testing.assert_close(average.module.weight.detach().double(), wanted, rtol=1e-5, atol=1e-6)
    assert not average.module.training and not any(p.requires_grad for p in average.parameters())


def test_crops_grow_with_the_stages(photographs, small, tmp_path, batches_seen):
    stages = (Stage(0, 32, 4), Stage(2, 48, 2))
    fit(small(steps=4, stages=stages, validate_every=NEVER), photographs, tmp_path / "run")
    assert [tuple(batch.clean.shape) for batch in batches_seen] == [(4, 3, 32, 32)] * 2 + [(2, 3, 48, 48)] * 2


def test_degrading_on_the_device_is_degrading_in_the_workers(photographs, small, tmp_path):
    trained = [
        fit(small(steps=3, synthesis=where, validate_every=3), photographs, tmp_path / where)
        for where in ("workers", "device")
    ]
    assert torch.equal(*map(weights_of, trained))
    assert len({(tmp_path / where / "history.json").read_text() for where in ("workers", "device")}) == 1


def test_a_mixture_of_three_factors(small, tmp_path, batches_seen):
    """Noise made on the fly, haze and rain as pairs, in the layout of the three-task set."""
    for i in range(4):
        (tmp_path / "BSD400").mkdir(exist_ok=True)
        picture(i).save(tmp_path / "BSD400" / f"{i}.png")
    pairs(tmp_path / "OTS", "hazy", "gt")
    pairs(tmp_path / "Rain100L", "input", "gt")
    sources = Recipe.load("three_task").sources
    weights = LossWeights(gate_prior=0, map_target="constant")
    fit(small("three", sources=sources, losses=weights, validation_images=3), tmp_path, tmp_path / "run")
    seen = {category for batch in batches_seen for category in batch.categories}
    assert {"haze", "rain"} < seen and seen & {"noise15", "noise25", "noise50"}
    assert all(batch.labels.shape == (4, 3) and (batch.labels.sum(1) == 1).all() for batch in batches_seen)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert len(history[-1]["categories"]) == 3 and all(
        math.isfinite(float(r["loss"])) for r in rows_of(tmp_path / "run")
    )


def test_a_learned_schedule_is_learned_and_kept(photographs, small, tmp_path):
    trained = fit(small("learned", steps=16, validate_every=NEVER), photographs, tmp_path / "run")
    saved = load_network(tmp_path / "run" / "weights")
    assert (trained.learned_schedule.seen > 0).all()
    assert float(trained.learned_schedule.seen.sum()) == 16 * 4  # every sample of every step
    start, learned = trained.config.schedule, saved.transport.schedule
    assert (learned.log_mean - start.log_mean).abs().max() > 1e-3
    assert torch.equal(learned.log_mean, trained.transport.schedule.log_mean)
    torch.testing.assert_close(learned.log_mean[[0, -1]], start.log_mean[[0, -1]])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision(precision, photographs, small, tmp_path):
    out = tmp_path / "run"
    fit(small(steps=2, validate_every=2, precision=precision), photographs, out)
    assert all(math.isfinite(float(row["loss"])) for row in rows_of(out))
    assert {p.dtype for p in load_network(out / "weights").parameters()} == {torch.float32}


def test_without_maps_there_is_no_map_loss(photographs):
    """Maps that are ones give a constant, which would only hide the other terms in the sum."""
    factors = ("low", "haze", "rain", "snow")
    mixture = Mixture((Source("."),), photographs, factors)
    batch = finish(stack([mixture[i, 32] for i in range(2)]), factors)
    for kind in ("f2d", "image_level"):
        loss = FactorizedObjective(LossWeights(), 0.5)(NETWORKS[kind](), batch)
        assert ("maps" in loss.terms) == (kind == "f2d") and loss.total.isfinite()


def test_a_sample_draws_the_same_whatever_its_batch(photographs):
    """Times, transport noise and gate noise: so that parts and processes make one batch."""
    factors = ("low", "haze", "rain", "snow")
    mixture = Mixture((Source("."),), photographs, factors)
    samples = [mixture[i, 32] for i in range(3)]
    for kind in ("deterministic", "resflow"):
        net = NETWORKS_START[kind]().train()
        objective = objective_of(net, LossWeights(balance=0, enhancement=0), 0.5)
        whole = objective(net, finish(stack(samples), factors)).total
        alone = [objective(net, finish(stack([sample]), factors)).total for sample in samples]
        torch.testing.assert_close(whole, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


def test_a_recipe_is_written_in_one_piece(photographs, small, tmp_path, monkeypatch):
    def half(self, text):
        self.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="disk full"):
        fit(small(), photographs, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
