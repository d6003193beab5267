"""`python -m bench.two_points -o DIR`: compare one call of a perfect network with several calls.

The clean value of every pixel is one of two modes. The network is the exact posterior mean E[mu | x_t, y], so all
errors come from the transport. The table gives the shares of 65,536 pixels that end near either mode or near neither,
and their standard deviation, for the stochastic transport (paper schedule, MC) and the deterministic straight flow.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from f2d.replacing import replacing
from f2d.transport import LogNormalSchedule, transport

MODES = (-0.5, 0.5)
NEAR = 0.1
STEPS = (1, 4, 10, 100)
STOCHASTIC = LogNormalSchedule.named()
STRAIGHT = LogNormalSchedule.named("straight", "none")


class Case(NamedTuple):
    """One experiment. y: value of the degraded pixels. odds: probability of the upper mode."""

    y: float
    odds: float


CASES = (Case(0.1, 0.5), Case(0.9, 0.5), Case(0.1, 0.7))


def posterior_stochastic(y: Tensor, odds: float) -> Callable[[Tensor, int], Tensor]:
    """E[mu | x_t, y] under ``x_t = mu + (y - mu) exp(M + S ε)``: the log-normal density of (x_t - mu) / (y - mu)."""
    modes = torch.tensor(MODES, dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    prior = torch.tensor([1 - odds, odds], dtype=torch.float64).log().reshape(2, 1, 1, 1, 1)

    def predict(x: Tensor, t: int) -> Tensor:
        log_weight = prior.expand(2, *x.shape)
        if t > 0:
            log_mean, log_std = STOCHASTIC.transition(0, t)
            factor = (x.double() - modes) / (y.double() - modes)
            log = factor.clamp_min(1e-300).log()
            density = -0.5 * ((log - log_mean) / log_std) ** 2 - log - (y.double() - modes).abs().log()
            log_weight = (log_weight + density).masked_fill(factor <= 0, -math.inf)
        return (log_weight.softmax(dim=0).nan_to_num(0.5) * modes).sum(dim=0).float()

    return predict


def posterior_straight(y: Tensor, odds: float) -> Callable[[Tensor, int], Tensor]:
    """E[mu | x_t, y] under ``x_t = (1 - t) y + t mu`` with vanishing noise: the mode of the nearer path.

    Both modes count if their paths are equally near, as they are after one call with even odds.
    """
    modes = torch.tensor(MODES).reshape(2, 1, 1, 1, 1)
    prior = torch.tensor([1 - odds, odds]).reshape(2, 1, 1, 1, 1)

    def predict(x: Tensor, t: int) -> Tensor:
        share = t / STRAIGHT.num_steps
        distance = (x - ((1 - share) * y + share * modes)).abs()
        nearer = (distance <= distance.amin(dim=0) + 1e-6).float()
        weight = prior * (nearer if t > 0 else torch.ones_like(nearer))
        return (weight * modes).sum(dim=0) / weight.sum(dim=0)

    return predict


FLOWS = {"stochastic": (STOCHASTIC, posterior_stochastic), "deterministic": (STRAIGHT, posterior_straight)}


def ends(case: Case, flow: str, steps: int) -> Tensor:
    """Restore 65,536 pixels."""
    schedule, posterior = FLOWS[flow]
    y = torch.full((1, 1, 256, 256), case.y)
    return transport(posterior(y, case.odds), y, schedule, steps=steps, seed=9).flatten()


def row(case: Case, flow: str, steps: int) -> list[str]:
    out = ends(case, flow, steps)
    lower, upper = (float(((out - mode).abs() < NEAR).float().mean()) for mode in MODES)
    shares = (f"{share:.3f}" for share in (lower, upper, 1 - lower - upper))
    return [f"{case.y:g}", f"{case.odds:g}", flow, str(steps), *shares, f"{float(out.std()):.4f}"]


def table() -> str:
    names = ["y", "odds of +0.5", "transport", "calls", "near -0.5", "near +0.5", "neither", "standard deviation"]
    rows = [row(case, flow, steps) for case in CASES for flow in FLOWS for steps in STEPS]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (names, ["---"] * len(names), *rows))


def figure(case: Case) -> Any:
    """Draw histograms of the restored values: a row per transport, a column per number of calls."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10, 4.2), layout="constrained")
    axes = drawing.subplots(len(FLOWS), len(STEPS), sharex=True, sharey=True)
    for line, flow in zip(axes, FLOWS):
        for axis, steps in zip(line, STEPS):
            axis.hist(ends(case, flow, steps).numpy(), bins=81, range=(-0.7, 0.7), color="#3b6ea8", density=True)
            axis.set_yscale("log")
            for mode in MODES:
                axis.axvline(mode, color="#c0504d", linewidth=1, linestyle="--")
            axis.set_title(f"{flow}, {steps} call{'s' * (steps > 1)}", fontsize=9)
    drawing.suptitle(f"A perfect network, modes at ±0.5 with even odds, y = {case.y:g}: one call collapses to the mean")
    drawing.supxlabel("restored value")
    drawing.supylabel("density")
    return drawing


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.two_points", description=__doc__)
    parser.add_argument("--out", "-o", type=Path, help="folder for two-points.md and two-points.png")
    options = parser.parse_args(command_line)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    text = table()
    print(text)
    if options.out:
        with replacing(options.out / "two-points.md") as part:
            part.write_text(text + "\n")
        with replacing(options.out / "two-points.png") as part:
            figure(CASES[0]).savefig(part, format="png", dpi=110)


if __name__ == "__main__":
    main()
