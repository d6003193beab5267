"""`python docs/figures` draws every figure of the documentation; the files are byte-identical each time."""

from pathlib import Path

import calls
import matplotlib
import paths
import schedule
import solver
from matplotlib.figure import Figure

SIZES = {schedule: (9, 3), paths: (9, 3.4), solver: (5, 3.4), calls: (9, 2.4)}


def main(folder: Path) -> None:
    """Write NAME.svg into `folder` for each module of figures."""
    plain = {"svg.hashsalt": "f2d", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8}
    with matplotlib.rc_context(plain):
        for module, size in SIZES.items():
            figure = Figure(figsize=size, layout="constrained")
            module.draw(figure)
            figure.savefig(folder / f"{module.__name__}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
