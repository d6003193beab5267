"""`python -m bench.learning CURVE.csv -o PICTURE`: draw validation gain against core-hours, a line per run.

CURVE.csv has a row per validation: run, the core-hours from the random start on (of all runs that led to it), and the
gain in dB over the held-out crops. `bench/results/learning-f2d-lite.csv` is that of the shipped weights.
"""

import argparse
import csv
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from f2d.replacing import replacing


def curve(rows: list[dict[str, str]]) -> Figure:
    """Draw the rows of a CSV file with the columns run, core_hours and gain."""
    runs = [(run, list(points)) for run, points in groupby(rows, lambda row: row["run"])]
    figure, axes = plt.subplots(figsize=(10, max(4.5, 0.22 * len(runs))), layout="constrained")  # room for the legend
    axes.set_prop_cycle(color=plt.colormaps["turbo"].resampled(len(runs))(range(len(runs))))
    for run, points in runs:
        hours, gains = zip(*((float(p["core_hours"]), float(p["gain"])) for p in points), strict=True)
        axes.plot(hours, gains, "o-", markersize=4, label=run)
    axes.set_xlabel("core-hours")
    axes.set_ylabel("validation gain, dB")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=__doc__)
    parser.add_argument("curve", type=Path, help="CSV file with the columns run, core_hours and gain")
    parser.add_argument("--out", "-o", type=Path, required=True, help="PNG, PDF or SVG file to write")
    options = parser.parse_args(arguments)
    with options.curve.open(newline="") as file:
        figure = curve(list(csv.DictReader(file)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(options.out) as part:
        figure.savefig(part, format=options.out.suffix[1:], dpi=120)


if __name__ == "__main__":
    main()
