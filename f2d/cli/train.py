"""`f2d train` and `f2d finetune`: train weights by a recipe on a folder of photographs."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from f2d.cli.console import fail, one_line_errors, out, shown, tidy_when_terminated
from f2d.cli.files import check_no_file

Data = Annotated[
    Path,
    typer.Option(
        help="Training data: clean photographs, CDD-11, pairs, a list or an LMDB; source paths in the recipe are "
        "relative to it.",
        show_default=False,
    ),
]
Target = Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.", show_default=False)]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the run in -o with the recipe saved there; RECIPE is not read.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="Set a field of the recipe, for example steps=500, losses.maps=0.1 or stages.0.crop=96; may be repeated.",
    ),
]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes on this machine (default: one per GPU, or those of torchrun).")
]
Accelerator = Annotated[str, typer.Option(help="Lightning accelerator: auto, cpu or cuda.")]


@one_line_errors
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")],
    data: Data,
    target: Target,
    resume: Resume = False,
    set_: Set = None,
    devices: Devices = None,
    accelerator: Accelerator = "auto",
) -> None:
    r"""Train a network on --data with RECIPE; clean photographs are degraded on the fly.

    -o receives the recipe as run, the last training state (from which --resume continues bit-exactly), losses,
    validation results, sample images, and the checkpoint folders weights/ and best/ for `f2d restore --model`. Under
    torchrun or SLURM all processes train together. Needs: pip install "f2d\[train]"
    """
    _fit(recipe, data, target, resume, set_, devices, accelerator)


@one_line_errors
def finetune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Shipped preset, checkpoint folder, or owner/name on the Hugging Face Hub."
        ),
    ],
    data: Data,
    target: Target,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe, or a YAML file.")] = "finetune",
    resume: Resume = False,
    set_: Set = None,
    devices: Devices = None,
    accelerator: Accelerator = "auto",
) -> None:
    r"""Fine-tune MODEL on --data, for example on pairs from your own camera.

    The command works like `f2d train`, but starts from existing weights. Needs: pip install "f2d\[train]"
    """
    _fit(recipe, data, target, resume, set_, devices, accelerator, initial={"initial": model})


def _fit(
    recipe: str,
    data: Path,
    target: Path,
    resume: bool,
    changes: list[str] | None,
    devices: int | None,
    accelerator: str,
    initial: dict[str, str] | None = None,
) -> None:
    if not data.exists():
        fail(f"{data}: no such file or folder")
    check_no_file(target)
    try:
        from f2d.training.callbacks import RECIPE
        from f2d.training.fit import fit
        from f2d.training.recipe import Recipe
    except ModuleNotFoundError as missing:
        if missing.name not in ("lightning", "yaml", "torchmetrics"):
            raise
        fail(f'f2d train needs {missing.name}, which is not installed: pip install "f2d[train]"')

    # Lightning prints advertisements, and a second line after Ctrl-C
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    overrides = dict(map(_field, changes or ()))
    if initial and overrides.keys() & initial.keys():
        fail(f"--set initial={overrides['initial']} contradicts MODEL, {initial['initial']}, so pass only MODEL")
    overrides |= initial or {}
    if resume and (target / RECIPE).exists():  # the run's own recipe, so that no -s has to be repeated
        recipe = str(target / RECIPE)
        out.print(f"resuming with {shown(Path(recipe))}: RECIPE is not read, so pass changes with --set")
    with tidy_when_terminated():
        fit(Recipe.load(recipe, overrides), data, target, resume=resume, devices=devices, accelerator=accelerator)
    out.print(f"weights in {shown(target / 'weights')}")


def _field(text: str) -> tuple[str, Any]:
    """NAME=VALUE -> (dotted name, value as YAML reads it)."""
    import yaml

    from f2d.training.recipe import parse

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--set {text}: must be NAME=VALUE, such as steps=500")
    try:
        return name, parse(value)
    except yaml.YAMLError:
        raise ValueError(f"--set {text}: the value is not YAML") from None
