"""`python -m bench.training --data DIR`: pixels per second of `f2d train`, including synthesis.

The command runs as a user would run it, with one process per core and one thread each. Every row that it appends to
losses.csv is a finished step; the time is measured from the row that ends the warm-up to the last row. It includes
decoding, synthesis, forward and backward pass, the exchange of gradients, the optimiser and the weight average. The
parts of a step are then timed separately, in one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.environment import environment
from f2d.data import Mixture, finish, stack
from f2d.nets.models import build, config_of
from f2d.training.averaging import Average
from f2d.training.module import optimizer_of
from f2d.training.objectives import objective_of
from f2d.training.recipe import Recipe, parse


def pixels_per_second(recipe: Recipe, data: Path, processes: int, warmup: int, steps: int) -> float:
    """Measure ``f2d train`` over `steps` steps after `warmup` steps; the result is the sum over the processes."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "recipe.yaml"), Path(folder, "run")
        path.write_text(recipe.to_yaml())
        command = [sys.executable, "-m", "f2d", "train", str(path), "--data", str(data), "-o", str(out)]
        command += ["--devices", str(processes), "--accelerator", "cpu"]
        quiet = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            first = _wait_for_row(process, out / "losses.csv", warmup)
            last = _wait_for_row(process, out / "losses.csv", warmup + steps)
        finally:
            process.terminate()
            process.communicate()
    stage = recipe.stages[0]
    return steps * stage.batch_size * stage.crop**2 / (last - first)


def _wait_for_row(process: subprocess.Popen, losses: Path, row: int) -> float:
    """Wait for row `row` of losses.csv (the first step is 1) and return the time.

    Raises RuntimeError if the command ends before.
    """
    while not (losses.exists() and losses.read_bytes().count(b"\n") > row):
        if process.poll() is not None:
            assert process.stderr is not None
            raise RuntimeError(f"f2d train ended before step {row}: {process.stderr.read().decode()[-2000:]}")
        time.sleep(0.005)
    return time.perf_counter()


def parts(recipe: Recipe, data: Path, processes: int, repeats: int) -> dict[str, float]:
    """Measure the median milliseconds of each part of a step in one process."""
    torch.set_num_threads(1)
    config: Any = config_of(recipe.model, recipe.network)
    stage = recipe.stages[0]
    share = stage.batch_size // processes
    mixture = Mixture(recipe.sources, data, config.factors, recipe.augment, recipe.seed)
    net = build(config).train().to(memory_format=torch.channels_last)
    average, objective = Average(net, recipe.ema_decay), objective_of(net, recipe.losses, recipe.one_call_fraction)
    optimizer = optimizer_of(recipe, net)
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = work()
        found.setdefault(name, []).append((time.perf_counter() - begin) * 1e3)
        return result

    def forward(batch: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16-mixed"):
            return objective(net, batch).total

    for index in range(2000):  # until nearly all images are decoded, as in a run after its first minute
        mixture[index, 8]
    for step in range(repeats + 2):
        keys = [(step * share + b, stage.crop) for b in range(share)]
        samples = timed("crop, augment", lambda keys=keys: [mixture[key] for key in keys])
        batch = timed("synthesis", lambda samples=samples: finish(stack(samples), config.factors))
        loss = timed("forward", lambda batch=batch: forward(batch))
        timed("backward", loss.backward)
        timed("optimiser", optimizer.step)
        optimizer.zero_grad(set_to_none=True)
        timed("average", lambda: average.update_parameters(net))
    return {name: round(median(values[2:]), 2) for name, values in found.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("recipe", nargs="?", default="lite", help="shipped recipe or YAML file (default lite)")
    parser.add_argument("--data", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="default: one per core")
    parser.add_argument("--warmup", type=int, default=100, help="untimed first steps, in which images are decoded")
    parser.add_argument("--steps", type=int, default=60, help="timed steps")
    parser.add_argument("--set", "-s", action="append", default=[], metavar="NAME=VALUE", help="as in f2d train")
    parser.add_argument("--json", type=Path, help="append the result as a line of JSON to this file")
    options = parser.parse_args(arguments)

    changes = dict(text.split("=", 1) for text in options.set)
    never = {"steps": 10**6, "save_every": 10**6, "validate_every": 10**6, "validation_images": 2}
    recipe = Recipe.load(options.recipe, {name: parse(value) for name, value in changes.items()} | never)
    total = pixels_per_second(recipe, options.data, options.processes, options.warmup, options.steps)
    row = {
        "recipe": options.recipe,
        "set": options.set,
        "processes": options.processes,
        "crop": recipe.stages[0].crop,
        "batch": recipe.stages[0].batch_size,
        "pixels_per_second": round(total),
        "pixels_per_second_and_core": round(total / options.processes),
        "milliseconds_of_one_process": parts(recipe, options.data, options.processes, 10),
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(row, indent=2))
    if options.json:
        with options.json.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
