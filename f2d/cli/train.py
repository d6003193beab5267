"""`f2d train` and `f2d finetune`: a recipe and a folder of photographs in, weights out."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from f2d.cli.console import fail, one_line_errors, out, tidy_when_terminated
from f2d.cli.files import check_no_file

Data = Annotated[
    Path,
    typer.Option(
        help="Clean photographs, CDD-11, pairs, a list or an LMDB; the root of the recipe's sources.",
        show_default=False,
    ),
]
Target = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in -o, with its own recipe.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="Replace a field of the recipe, such as steps=500, losses.maps=0.1 or stages.0.crop=96; again for others.",
    ),
]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes on this machine; one per GPU, or what torchrun started.")
]
Accelerator = Annotated[str, typer.Option(help="Lightning's name: auto, cpu, cuda.")]


@one_line_errors
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that ships, or a YAML file.")],
    data: Data,
    target: Target,
    resume: Resume = False,
    set_: Set = None,
    devices: Devices = None,
    accelerator: Accelerator = "auto",
) -> None:
    r"""Train RECIPE on the photographs in --data; clean ones are degraded on the fly.

    -o receives the recipe as it ran, the last state (--resume continues it bit for bit), losses, validations, sample
    pictures, and weights/ and best/, checkpoint folders that `f2d restore --model` takes. Under torchrun or SLURM all
    their processes train together. Needs: pip install "f2d\[train]"
    """
    _fit(recipe, data, target, resume, set_, devices, accelerator)


@one_line_errors
def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Shipped weights or a checkpoint folder.")],
    data: Data,
    target: Target,
    recipe: Annotated[str, typer.Option(help="A recipe that ships, or a YAML file.")] = "finetune",
    resume: Resume = False,
    set_: Set = None,
    devices: Devices = None,
    accelerator: Accelerator = "auto",
) -> None:
    r"""Go on training MODEL on the photographs in --data, such as pairs of one's own camera.

    As `f2d train`, from weights that are there. Needs: pip install "f2d\[train]"
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

    # advertisements, and a second line after Ctrl-C
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    overrides = {**dict(map(_field, changes or ())), **(initial or {})}
    if resume and (target / RECIPE).exists():  # the run's own, so that no -s has to be given again
        recipe = str(target / RECIPE)
    with tidy_when_terminated():
        fit(Recipe.load(recipe, overrides), data, target, resume=resume, devices=devices, accelerator=accelerator)
    out.print(f"weights in {escape(str(target / 'weights'))}")


def _field(text: str) -> tuple[str, Any]:
    """(dotted name, value as YAML reads it) of NAME=VALUE."""
    import yaml

    from f2d.training.recipe import parse

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"--set {text}: give NAME=VALUE, such as steps=500")
    try:
        return name, parse(value)
    except yaml.YAMLError:
        raise ValueError(f"--set {text}: the value is not YAML") from None
