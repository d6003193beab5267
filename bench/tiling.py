"""`python -m bench.tiling`: memory and time of f2d-lite on 1, 8 and 33 megapixels, and bands against the whole image.

The photograph is the demo's coffee, enlarged. Every size runs in its own process, whose peak resident memory the system
reports. Then a 3-megapixel image is restored whole and in bands. The output gives the PSNR between the two, and the rms
difference on the rows where bands meet and elsewhere. `--picture` saves the difference, amplified eight times on grey.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from bench.environment import environment
from f2d.demo import sample_photograph
from f2d.engine.restorer import Restorer
from f2d.evaluation.memory import peak_memory
from f2d.images import open_image, to_picture, to_tensor

GIB = 1 << 30
SIZES = {1: (1152, 864), 8: (3264, 2448), 33: (6656, 4992)}  # megapixels: width, height


def photograph(width: int, height: int) -> Tensor:
    """Return the photograph as uint8 [3, height, width]."""
    picture = open_image(sample_photograph("coffee")).resize((width, height))
    return to_tensor(picture).mul_(255).round_().byte()


def one_size(megapixels: int, max_memory: int, precision: str, threads: int) -> dict:
    """Measure seconds and peak resident MiB of one restoration in this process; also return its plan."""
    torch.set_num_threads(threads)
    restorer = Restorer.load("f2d-lite", device="cpu", precision=precision)
    restorer(photograph(64, 64))
    image = photograph(*SIZES[megapixels])
    chosen = restorer.plan(image[None], max_memory)
    start = time.perf_counter()
    restorer(image, max_memory=max_memory)
    seconds = time.perf_counter() - start
    how = "whole" if chosen.whole else "bands, features in " + ("files" if chosen.in_files else "memory")
    return {"how": how, "seconds": seconds, "peak": peak_memory() >> 20, "predicted": chosen.predicted_bytes >> 20}


def table(max_memory: int, precision: str, threads: int) -> None:
    print(f"\n--max-memory {max_memory / GIB:g}G, {precision}")
    print("| megapixels | mode | seconds | MP/s | peak MiB | predicted MiB |\n|---:|---|---:|---:|---:|---:|")
    for megapixels, (width, height) in SIZES.items():
        arguments = f"{megapixels} {max_memory} {precision} {threads}".split()
        command = [sys.executable, "-m", "bench.tiling", "--one", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"| {width * height / 1e6:.2f} | {done.stderr.strip().splitlines()[-1]} | | | | |")
            continue
        found = json.loads(done.stdout)
        speed = width * height / 1e6 / found["seconds"]
        row = f"{found['how']} | {found['seconds']:.1f} | {speed:.3f} | {found['peak']} | {found['predicted']}"
        print(f"| {width * height / 1e6:.2f} | {row} |", flush=True)


def against_whole(precision: str, picture: Path | None) -> None:
    """Print the PSNR of bands against the whole image, and the differences at the seams."""
    restorer = Restorer.load("f2d-lite", device="cpu", precision=precision)
    image = photograph(2048, 1536)[None] / 255
    least = 1 << 20
    while True:  # the smallest budget gives the smallest bands and thus the most seams
        try:
            chosen = restorer.plan(image, least)
            break
        except ValueError as error:
            least = int(str(error).split()[-2]) << 20
    whole, bands = (
        restorer.restore_batch(image, exact=True, seed=0),
        restorer.restore_batch(image, max_memory=least, seed=0),
    )
    difference = (bands - whole).double()
    psnr = -10 * math.log10(max(difference.square().mean().item(), 1e-30))
    rows = chosen.positions // (image.shape[3] // 2) // 2 * 2 * 2
    meeting = torch.zeros(image.shape[2], dtype=torch.bool)
    for row in range(rows, image.shape[2], rows):
        meeting[row - 2 : row + 2] = True
    squares = difference.square().mean(dim=(0, 1, 3))
    levels = 255 * difference.abs().max().item()
    seams, elsewhere = (255 * squares[where].mean().sqrt().item() for where in (meeting, ~meeting))
    print(
        f"{precision}: bands of {rows} rows against the whole image, 3.1 MP: {psnr:.1f} dB, at most {levels:.2f} levels"
    )
    print(f"  rms difference at seams {seams:.5f} levels, elsewhere {elsewhere:.5f}; rms change by the restoration "
          f"{255 * (whole.cpu() - image).square().mean().sqrt().item():.2f}")  # fmt: skip
    if picture:
        to_picture((difference[0] * 8 + 0.5).clamp(0, 1).float()).save(picture)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tiling", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--precision", default="bf16", help="bf16 (default) or float32")
    parser.add_argument("--picture", type=Path, help="file to which the amplified difference is saved")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        megapixels, max_memory, precision, threads = options.one
        print(json.dumps(one_size(int(megapixels), int(max_memory), precision, int(threads))))
        return
    torch.set_num_threads(options.threads)
    print(environment(torch.device("cpu")))
    print(f"f2d-lite, {options.threads} threads")
    for budget in (4 * GIB, 3 * GIB):  # before anything else, since a child process starts with its parent's peak
        table(budget, options.precision, options.threads)
    print()
    for precision in ("bf16", "float32"):
        against_whole(precision, options.picture if precision == options.precision else None)


if __name__ == "__main__":
    main()
