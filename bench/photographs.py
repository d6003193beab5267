"""`python -m bench.photographs DIR ... -o OUT`: real photographs without ground truth, before and after.

Per folder the mean NIQE (lower is more natural) before and after over the pictures that are large enough for it, how
far they were changed in grey levels, and a contact sheet OUT/NAME.jpg to look at: such numbers prove little.
"""

import argparse
import json
from itertools import chain
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from torch import Tensor

from bench.environment import environment
from f2d.engine.restorer import Restorer
from f2d.images import IMAGE_SUFFIXES, image_to_tensor, to_picture
from f2d.images.sheet import Panel, sheet
from f2d.metrics.niqe import PATCH, niqe
from f2d.replacing import replacing

ACROSS = 2  # pairs of pictures in a row of a sheet


class Row(NamedTuple):
    """Means over the pictures of a folder; NIQE over `measured` of them, NaN where there are none."""

    folder: str
    images: int
    measured: int
    niqe_before: float
    niqe_after: float
    change: float


def restored(restorer: Restorer, folder: Path, limit: int | None) -> list[tuple[Tensor, Tensor]]:
    """(before, after) [3, H, W] in [0, 1] of the pictures of a folder; ValueError where there are none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[:limit]
    if not paths:
        raise ValueError(f"no photographs in {folder}")
    before = [image_to_tensor(path) for path in paths]
    return [(image, restorer(image, seed=0).image.clamp(0, 1)) for image in before]


def row(folder: Path, pairs: list[tuple[Tensor, Tensor]]) -> Row:
    """The numbers of a folder."""
    scores = [(niqe(a), niqe(b)) for a, b in pairs if min(a.shape[1:]) >= 2 * PATCH]
    scores = [pair for pair in scores if all(map(isfinite, pair))]
    before, after = (mean(column) for column in zip(*scores)) if scores else (float("nan"),) * 2
    change = mean(float((b - a).abs().mean()) * 255 for a, b in pairs)
    return Row(folder.name, len(pairs), len(scores), round(before, 2), round(after, 2), round(change, 1))


def contact_sheet(title: str, pairs: list[tuple[Tensor, Tensor]]):
    """Before and after beside each other, `ACROSS` pairs in a row."""
    panels = [[Panel(to_picture(image), label) for image, label in zip(pair, ("before", "after"))] for pair in pairs]
    rows = [list(chain(*panels[i : i + ACROSS])) for i in range(0, len(panels), ACROSS)]
    return sheet(title, "real photographs, before and after", rows)


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.photographs", description=__doc__)
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="DIR")
    add("--out", "-o", type=Path, required=True, help="folder for the sheets and photographs.json")
    add("--model", default="f2d-lite")
    add("--limit", type=int, help="only the first so many pictures of each folder")
    add("--device", default="auto")
    add("--precision", default="auto")
    options = parser.parse_args(command_line)
    restorer = Restorer.load(options.model, device=options.device, precision=options.precision)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for folder in options.folders:
        pairs = restored(restorer, folder, options.limit)
        rows.append(row(folder, pairs))
        print(rows[-1], flush=True)
        with replacing(options.out / f"{folder.name}.jpg") as part:
            contact_sheet(folder.name, pairs).save(part, format="JPEG", quality=88)
    record = {"model": options.model, "environment": environment(), "rows": [row._asdict() for row in rows]}
    with replacing(options.out / "photographs.json") as part:
        part.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
