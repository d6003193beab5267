"""`python -m bench.photo_time`: seconds to restore one 1080x720 photograph, by the model alone and the whole command.

The photograph is the demo's coffee, enlarged. The model time is the median of `--repeats` calls in one process, after a
warm-up call. The time of the whole command is that of `f2d restore` from process start to exit, the median of 3 runs
after a warm-up run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from PIL.Image import Image

from bench.environment import environment
from bench.profile import shares, table
from f2d.demo import sample_photograph
from f2d.engine.restorer import Restorer
from f2d.images import open_image, save_image


def model_seconds(restorer: Restorer, picture: Image, repeats: int) -> list[float]:
    """Measure the seconds of `repeats` restorations after a warm-up."""
    restorer(picture)
    return [restorer(picture).seconds for _ in range(repeats)]


def command_seconds(photo: Path, out: Path, model: str) -> list[float]:
    """Measure the seconds of three runs of `f2d restore` from start to exit, on our threads, after a warm-up run."""
    command = [sys.executable, "-m", "f2d", "restore", str(photo), "-o", str(out), "--model", model, "--overwrite"]
    environ = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environ)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.photo_time", description=__doc__)
    parser.add_argument("--model", default="f2d-lite", help="preset with shipped weights, or checkpoint folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of the model (default 7)")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also print self times, as bench.profile does",
    )
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    picture = open_image(sample_photograph("coffee")).resize((1080, 720))
    for precision in ("float32", "auto"):
        restorer = Restorer.load(options.model, precision=precision)
        seconds = model_seconds(restorer, picture, options.repeats)
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        print(f"model, {restorer.execution}: {median(seconds):.3f} s (median of {options.repeats}; {spread})")
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        save_image(picture, photo)
        whole = command_seconds(photo, Path(folder) / "restored.png", options.model)
    print(f"whole command: {median(whole):.2f} s (median of {len(whole)})")
    if options.profile:
        print(table({options.model: (1000 * median(seconds), shares(lambda: restorer(picture)))}))
    print(environment())


if __name__ == "__main__":
    main()
