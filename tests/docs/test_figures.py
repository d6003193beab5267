"""The figures of the documentation: what they plot obeys the law that their page derives, and they are as drawn."""

import importlib
import math
import runpy
import sys

import numpy as np
import pytest
import torch

from f2d.transport import LogNormalSchedule

from .blocks import ROOT

FOLDER = ROOT / "docs" / "figures"
NAMES = ("calls", "paths", "schedule", "solver")


@pytest.fixture(scope="module")
def figures():
    """Module of each figure by name."""
    sys.path.insert(0, str(FOLDER))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def walked(figures):
    return figures["paths"].compute()


def test_the_mean_of_the_paths_is_that_of_the_law(walked):
    """At every time within 4.5 standard errors of mu + (y - mu) exp(-∫theta), where the law has a finite tail."""
    paths = walked["paths"]
    error = (paths.mean(1) - walked["mean"]).abs()
    assert (error[1:] <= 4.5 * walked["deviation"][1:] / math.sqrt(paths.shape[1])).all()
    schedule = LogNormalSchedule.named("cosine", "linear", 100)
    by_hand = -0.2 + (0.8 + 0.2) * (-schedule.dt * schedule.theta.cumsum(0)).exp()
    torch.testing.assert_close(walked["mean"], by_hand)


def test_the_share_of_paths_below_each_quantile(figures, walked):
    """Of 10,000 paths: within 4.5 deviations of a binomial count, at every tenth time."""
    for t in range(10, 101, 10):
        for level, quantile in zip(figures["paths"].LEVELS, walked["quantiles"][t]):
            share = (walked["paths"][t] < quantile).double().mean().item()
            assert abs(share - level) < 4.5 * math.sqrt(level * (1 - level) / walked["paths"].shape[1]), (t, level)


def test_schedules_end_at_a_thousandth_and_the_papers_numbers_are_there(figures):
    curves = figures["schedule"].compute()
    for label, (t, quantiles) in curves.items():
        assert t[-1] == 100 and quantiles[-1, 1] == pytest.approx(0.001), label
        assert (quantiles[0] == 1).all() and (quantiles.diff(dim=1)[1:] > 0).all()
    paper = curves["cosine, linear (the paper's)"][1]
    published = {10: (-0.0274, 0.0908), 50: (-0.6791, 0.4540), 90: (-3.2832, 0.8172)}  # t -> M_t, S_t
    for t, (log_mean, log_std) in published.items():
        assert paper[t, 1].log().item() == pytest.approx(log_mean, abs=6e-5)
        assert (paper[t, 2] / paper[t, 1]).log().item() / 1.6448536 == pytest.approx(log_std, abs=6e-5)


def test_euler_maruyama_comes_nearer_with_order_one_half(figures):
    found = figures["solver"].compute()
    order = np.polyfit(np.log(found["steps"]), np.log(found["error"]), 1)[0]
    assert 0.4 < order < 0.7 and (np.diff(found["error"]) < 0).all()
    log_mean, log_std = found["schedule"].transition(0, figures["solver"].TIME)
    logs = np.log(found["exact"])
    assert abs(logs.mean() - log_mean) < 4.5 * log_std / math.sqrt(len(logs))
    assert logs.std() == pytest.approx(log_std, rel=4.5 / math.sqrt(2 * len(logs)))


def test_one_call_gives_the_mean_and_many_decide(figures):
    results = figures["calls"].compute()
    assert results[1].abs().max() < 2 * (1 / 255)  # the mean of -1/2 and +1/2, on the scale of grey levels
    decided = {n: float(((r.abs() - 0.5).abs() < 0.1).double().mean()) for n, r in results.items()}
    assert decided[1] == 0 < decided[4] < decided[10] < decided[100] and decided[100] > 0.9
    # odds stay even with many steps: nothing here is a sampler of the posterior, but it must not be one-sided
    assert 0.4 < float((results[100] > 0).double().mean()) < 0.6


def test_they_are_drawn_by_one_command_as_they_lie_there(figures, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the [docs] extra")
    program = runpy.run_path(str(FOLDER / "__main__.py"))
    program["main"](tmp_path)
    for name in NAMES:
        drawn, kept = (folder / f"{name}.svg" for folder in (tmp_path, FOLDER))
        assert drawn.stat().st_size < 150_000
        # another version of matplotlib may place a letter elsewhere; what is drawn stays as much
        assert kept.read_text().count("<path") == drawn.read_text().count("<path"), name
