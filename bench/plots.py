"""`python -m bench.plots result.json -o DIR`: draw roofline.png and ratios.png from a result of bench.run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from bench import report
from bench.measure import Row
from f2d.replacing import replacing

OURS, OTHERS, CEILING = "#1b6ca8", "#c4c4c4", "#222222"


def roofline(rows: Sequence[Row], about: str) -> Figure:
    """Draw GB/s of least traffic for every case, ours and torch.compile, with the ceiling measured in the same run."""
    groups = {key: group for key, group in report.by_case(rows).items() if any(r.gbps is not None for r in group)}
    figure, axes = plt.subplots(figsize=(11, 1.5 + 0.28 * len(groups)), layout="constrained")
    names = []
    for y, ((op, _, mode, case), group) in enumerate(groups.items()):
        names.append(f"{op} {mode}  {case}")
        ceiling = max((r.gbps for r in group if r.role == "ceiling"), default=None)
        if ceiling is not None:
            axes.plot([ceiling] * 2, [y - 0.4, y + 0.4], color=CEILING, label="ceiling" if not y else None)
        others = [r.gbps for r in group if r.role == "compile"]
        axes.plot(others, [y] * len(others), "s", color=OTHERS, label="torch.compile" if not y else None)
        ours = [r.gbps for r in group if r.role == "ours"]
        axes.barh([y] * len(ours), ours, height=0.6, color=OURS, alpha=0.8, zorder=0, label=None if y else "ours")
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("GB/s of least traffic")
    axes.set_title(about, fontsize=8)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    return figure


def ratio_plot(rows: Sequence[Row], about: str) -> Figure:
    """Draw the speed-up of ours over each baseline on a log scale: a dot per case, a bar at the geometric mean."""
    found = [
        (f"{op}{f' ({variant})' if variant else ''} {mode}, {provider}: {kind.removesuffix('/ours')}", values)
        for (op, variant, mode, provider), kinds in report.ratios(rows).items()
        for kind, values in kinds.items()
        if kind.endswith("/ours")
    ]
    figure, axes = plt.subplots(figsize=(11, 1.5 + 0.28 * len(found)), layout="constrained")
    for y, (_, values) in enumerate(found):
        axes.plot(list(values.values()), [y] * len(values), "o", color=OURS, alpha=0.4, markersize=4)
        axes.plot([geometric_mean(values.values())] * 2, [y - 0.35, y + 0.35], color=OURS, linewidth=3)
    axes.axvline(1, color=CEILING, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(found)), [name for name, _ in found], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("time of the baseline / time of ours (above 1: ours is faster)")
    axes.set_title(about, fontsize=8)
    return figure


def main(command_line: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__)
    parser.add_argument("result", type=Path, help="JSON file of bench.run")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(command_line)
    try:
        rows, environment = report.from_json(options.result.read_text())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    about = ", ".join(f"{key} {environment.get(key, 'unknown')}" for key in ("device", "torch", "commit"))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("roofline", roofline), ("ratios", ratio_plot)):
        figure = draw(rows, about)
        with replacing(options.out / f"{name}.png") as part:
            figure.savefig(part, format="png", dpi=130)
        plt.close(figure)
        print(options.out / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
