"""`python -m bench.comparison --clean DIR --models A B ...`: several models on the same composites, side by side.

Every model restores the eleven composites of the clean photographs, with fixed seeds, for every number of steps asked
for. Printed per model and steps: RGB PSNR after 8 bits and SSIM (Gaussian 11), both means over all composites, gain
over the input, spread (deviation over seeds, in grey levels) and sharpness (gradient energy over that of
the truth); for models with experts, their selectivity by three definitions.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from torch import Tensor

from bench.environment import environment
from f2d.degradation import CATEGORIES, FACTORS, degrade_batch
from f2d.engine.restorer import Restorer
from f2d.images import IMAGE_SUFFIXES, image_to_tensor
from f2d.metrics import psnr, sharpness, ssim
from f2d.metrics.selectivity import Selectivity
from f2d.replacing import replacing

COLUMNS = ("psnr", "gain", "ssim", "sharpness", "spread")


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison", description=__doc__)
    add = parser.add_argument
    add("--clean", type=Path, required=True, help="folder of clean photographs")
    add("--models", nargs="+", required=True, metavar="NAME=MODEL", help="presets or checkpoint folders, with a name")
    add("--steps", type=int, nargs="+", default=[1, 4])
    add("--limit", type=int, help="only the first so many photographs")
    add("--crop", type=int, help="centre crops of so many pixels")
    add("--device", default="auto")
    add("--precision", default="auto")
    add("--out", "-o", type=Path, help="write OUT.md and OUT.json")
    options = parser.parse_args(command_line)
    paths = sorted(path for path in options.clean.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[: options.limit]
    if not paths:
        parser.error(f"no photographs in {options.clean}")
    clean = [_centre(image_to_tensor(path), options.crop) for path in paths]

    composites = list(_composites(clean))  # once for all models and steps
    start, rows, selective = time.perf_counter(), [], []
    for text in options.models:
        name, _, model = text.rpartition("=")
        restorer = Restorer.load(model, device=options.device, precision=options.precision)
        for steps in options.steps:
            row = {"model": name or model, "steps": steps, **_scores(restorer, composites, steps)}
            rows.append(row)
            print(_line(list(row.values())), flush=True)
        if restorer.config.to_dict().get("factors"):
            selective.append({"model": name or model, **_selectivity(restorer, composites)})
    tables = [_table(["model", "steps", *COLUMNS], rows)]
    if selective:
        tables.append(_table(list(selective[0]), selective))
    record = {
        "benchmark": "comparison",
        "images": len(clean),
        "crop": options.crop,
        "environment": environment(),
        "seconds": round(time.perf_counter() - start, 1),
        "quality": rows,
        "selectivity": selective,
    }
    print("\n\n".join(tables))
    if options.out:
        for suffix, text in ((".md", "\n\n".join(tables) + "\n"), (".json", json.dumps(record, indent=2) + "\n")):
            with replacing(options.out.with_suffix(suffix)) as part:
                part.write_text(text)


Composite = tuple[Tensor, Tensor, Tensor, Tensor]


def _composites(clean: list[Tensor]) -> Iterator[Composite]:
    """(degraded in 8 bits, truth, maps, labels), one image at a time, all categories."""
    for c, category in enumerate(CATEGORIES):
        for i, truth in enumerate(clean):
            degraded, maps, labels, _ = degrade_batch(truth[None], [category], [1000 * c + i])
            yield degraded.mul(255).round().div(255), truth[None], maps, labels


def _scores(restorer: Restorer, composites: list[Composite], steps: int) -> dict[str, float]:
    found = []
    for degraded, truth, _, _ in composites:
        first, second = (restorer.restore_batch(degraded, steps=steps, seed=seed).cpu() for seed in (0, 1))
        # the deviation of two samples is their root mean square difference by the root of 2
        spread = (first - second).square().mean().sqrt() / 2**0.5 * 255
        quality, before = psnr(first, truth), psnr(degraded, truth)
        row = (quality, quality - before, ssim(first, truth), sharpness(first, truth), spread)
        found.append([float(value) for value in row])
    return {name: round(mean(column), 4) for name, column in zip(COLUMNS, zip(*found))}


def _selectivity(restorer: Restorer, composites: list[Composite]) -> dict[str, float]:
    measure = Selectivity()
    for degraded, _, maps, labels in composites:
        seen = restorer(degraded, seed=0)
        order = [FACTORS.index(name) for name in seen.factors]
        measure.update(seen.gates, seen.maps, labels[:, order], maps[:, order])
    return {
        f"{name}{suffix}": round(value, 2)
        for name, ratio in measure.compute().items()
        for suffix, value in (("", ratio.ratio), (" median", ratio.median))
    }


def _centre(image: Tensor, crop: int | None) -> Tensor:
    if crop is None:
        return image
    top, left = ((size - crop) // 2 for size in image.shape[1:])
    return image[:, top : top + crop, left : left + crop]


def _table(names: list[str], rows: list[dict]) -> str:
    return "\n".join(
        [_line(names), _line(["---"] * len(names)), *(_line([row[name] for name in names]) for row in rows)]
    )


def _line(values: list) -> str:
    return "| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values) + " |"


if __name__ == "__main__":
    main()
