"""`python -m bench.cbsd68 --clean DIR [--paired DIR ...]`: PSNR and SSIM before and after, by category.

Clean photographs are degraded with fixed seeds (image i of the sorted folder, category c: 1000 c + i) and rounded to
8 bits, as files would hold them; RGB PSNR in dB and SSIM (Gaussian 11), means over the images. Beside the model stands
an oracle that knows the truth and may fit one affine colour map per image. Folders of real pairs follow, each with its
own row.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor

from bench.colour_oracle import affine_colour_oracle
from bench.environment import environment
from f2d.data.pairs import find_pairs
from f2d.degradation import CATEGORIES, degrade_batch
from f2d.engine.restorer import Restorer
from f2d.images import IMAGE_SUFFIXES, image_to_tensor
from f2d.metrics import psnr, ssim
from f2d.replacing import replacing
from f2d.transport import sampling

HARD_BELOW = 20.0  # dB: the categories whose mean input lies under this are averaged apart


class Row(NamedTuple):
    """Means over `images` pictures of one category or folder: PSNR in dB (before, after, oracle), SSIM."""

    name: str
    images: int
    before: float
    after: float
    oracle: float
    ssim_before: float
    ssim_after: float


def composites(restorer: Restorer, clean: list[Tensor], batch_size: int, **options) -> Iterator[Row]:
    """One row per category of clean images [3, H, W] in [0, 1]; images of equal size are restored together."""
    order = sorted(range(len(clean)), key=lambda i: clean[i].shape)
    same_size = [list(group) for _, group in groupby(order, key=lambda i: clean[i].shape)]
    batches = [group[i : i + batch_size] for group in same_size for i in range(0, len(group), batch_size)]
    for c, category in enumerate(CATEGORIES):
        scores = []
        for indices in batches:
            truth = torch.stack([clean[i] for i in indices])
            degraded = degrade_batch(truth, [category] * len(indices), [1000 * c + i for i in indices])[0]
            scores += _score(restorer, _in_8_bits(degraded), truth, options)
        yield _row(category, scores)


def real_pairs(restorer: Restorer, folder: Path, **options) -> Row:
    """The row of a folder of pairs. ValueError where the two pictures of a pair differ in size."""
    scores = []
    for pair in find_pairs(folder, folder.name):
        degraded, truth = image_to_tensor(pair.degraded)[None], image_to_tensor(pair.clean)[None]
        if degraded.shape != truth.shape:
            raise ValueError(f"{pair.degraded} is {tuple(degraded.shape)} and {pair.clean} {tuple(truth.shape)}")
        scores += _score(restorer, degraded, truth, options)
    return _row(folder.name, scores)


def _in_8_bits(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round().div(255)


def _score(restorer: Restorer, degraded: Tensor, truth: Tensor, options: dict) -> list[list[float]]:
    """[before, after, oracle, SSIM before, SSIM after] of each image of a batch."""
    restored = restorer.restore_batch(degraded, **options).cpu()
    candidates = (degraded, restored, affine_colour_oracle(degraded, truth))
    columns = [psnr(image, truth) for image in candidates] + [ssim(image, truth) for image in candidates[:2]]
    return torch.stack([column.double() for column in columns], dim=1).tolist()


def _row(name: str, scores: list[list[float]]) -> Row:
    return Row(name, len(scores), *(mean(column) for column in zip(*scores)))


def average(name: str, rows: list[Row]) -> Row:
    """The mean of rows, each counted once."""
    return Row(name, sum(row.images for row in rows), *(mean(column) for column in zip(*(row[2:] for row in rows))))


def markdown(rows: list[Row]) -> str:
    """A table with the gains."""
    lines = [
        "| | images | input, dB | restored, dB | gain | affine colour oracle, dB | input SSIM | restored SSIM |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, images, before, after, oracle, *similarity in rows:
        decibels = f"{before:.2f} | {after:.2f} | {after - before:+.2f} | {oracle:.2f}"
        lines.append(f"| {name} | {images} | {decibels} | {similarity[0]:.3f} | {similarity[1]:.3f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cbsd68", description=__doc__)
    parser.add_argument("--clean", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument(
        "--paired", type=Path, nargs="*", default=[], help="folders of real pairs (input/hazy/low and gt)"
    )
    parser.add_argument("--model", default="f2d-lite", help="preset with shipped weights, or checkpoint folder")
    parser.add_argument("--steps", type=int, help="network calls per photograph, by default the model's own")
    parser.add_argument("--sampler", help="how the transport steps, by default the model's own")
    parser.add_argument("--seed", type=int, default=0, help="of the transport's noise")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--limit", type=int, help="only the first so many photographs")
    parser.add_argument("--out", "-o", type=Path, help="write OUT.md and OUT.json")
    options = parser.parse_args(arguments)

    start = time.perf_counter()
    restorer = Restorer.load(options.model, device=options.device, precision=options.precision)
    paths = sorted(path for path in options.clean.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)[: options.limit]
    if not paths:
        parser.error(f"no photographs in {options.clean}")
    steps, sampler = sampling(restorer.transport, options.steps, options.sampler)
    how = {"steps": steps, "sampler": sampler, "seed": options.seed}
    rows = []
    for row in composites(restorer, [image_to_tensor(path) for path in paths], options.batch_size, **how):
        rows.append(row)
        print(f"{row.name}: {row.before:.2f} -> {row.after:.2f} dB", flush=True)
    hard = [row for row in rows if row.before < HARD_BELOW]
    rows.append(average("**mean of all**", rows))
    if hard:
        rows.append(average(f"**mean of those under {HARD_BELOW:g} dB**", hard))
    pairs = [real_pairs(restorer, folder, **how) for folder in options.paired]

    table = markdown(rows) + ("\n\n" + markdown(pairs) if pairs else "")
    record = {
        "benchmark": "cbsd68",
        "clean": options.clean.name,
        "model": options.model,
        "execution": str(restorer.execution),
        "sampling": how,
        "seeds": "1000 * category index + image index",
        "environment": environment(),
        "seconds": round(time.perf_counter() - start, 1),
        "composites": [row._asdict() for row in rows],
        "pairs": [row._asdict() for row in pairs],
    }
    print(f"\n{table}\n\n{record['environment']}, {restorer.execution}, {record['seconds']} s")
    if options.out:
        _replace(options.out.with_suffix(".md"), table + "\n")
        _replace(options.out.with_suffix(".json"), json.dumps(record, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text)


if __name__ == "__main__":
    main()
