"""`python -m bench.baselines --data DIR -o OUT`: F²D-Net, its two failure modes and ResFlow's variants, trained alike.

Same photographs, samples, crops, batches, optimiser and number of steps for all; OUT/NAME is the run of each. A run
that was stopped goes on. `bench.comparison` then sets OUT/NAME/weights side by side; the command for it is printed.
"""

import argparse
from pathlib import Path
from typing import Any

from f2d.training.fit import fit
from f2d.training.recipe import Recipe

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "factorized": ("lite", {}),
    "deterministic": ("deterministic", {}),
    "image-level": ("image_level", {}),
    "image-level-supervised": ("image_level_supervised", {}),
    "resflow-adaptor": ("resflow_lite", {}),
    "resflow-concatenation": ("resflow_lite", {"network.injection": "concatenation"}),
    "resflow-addition": ("resflow_lite", {"network.injection": "addition"}),
    "resflow-constant": ("resflow_lite", {"network.auxiliary": "constant"}),
    "resflow-none": ("resflow_lite", {"network.auxiliary": "none"}),
}


def budget(steps: int, crop: int, batch_size: int) -> dict[str, Any]:
    """What all variants have in common."""
    return {
        "steps": steps,
        "stages": [{"start": 0, "crop": crop, "batch_size": batch_size}],
        "learning_rate": 1.5e-3,
        "warmup_steps": min(50, steps // 10),
        "ema_decay": 0.99,
        "one_call_fraction": 0.5,
        "save_every": max(1, steps // 4),
        "validate_every": steps,
    }


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.baselines", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of clean photographs")
    add("--out", "-o", type=Path, required=True, help="folder of the runs")
    add("--steps", type=int, default=600)
    add("--crop", type=int, default=96)
    add("--batch-size", type=int, default=8)
    add("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help=", ".join(VARIANTS))
    options = parser.parse_args(command_line)
    for name in options.only:
        recipe, changes = VARIANTS[name]
        out = options.out / name
        common = budget(options.steps, options.crop, options.batch_size)
        fit(Recipe.load(recipe, {**common, **changes}), options.data, out, resume=(out / "last.ckpt").exists())
    models = " ".join(f"{name}={options.out / name / 'weights'}" for name in options.only)
    print(f"python -m bench.comparison --clean DIR --models {models} --steps 1 2 4 8")


if __name__ == "__main__":
    main()
