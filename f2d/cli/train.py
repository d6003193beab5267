"""`f2d train`: a recipe and a folder of clean photographs in, weights out."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from f2d.cli.console import fail, one_line_errors, out
from f2d.cli.files import check_no_file


@one_line_errors
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe that ships (lite), or a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder of clean photographs.", show_default=False)],
    target: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in -o.")] = False,
    model: Annotated[str | None, typer.Option(help="Preset to train.")] = None,
    initial: Annotated[str | None, typer.Option(help="Preset or checkpoint folder to start from.")] = None,
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Side of the training crops in pixels.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    precision: Annotated[str | None, typer.Option(help="Lightning's name: bf16-mixed, 32-true, ...")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare batches.")] = None,
    validate_every: Annotated[int | None, typer.Option(min=1, help="Steps between validations.")] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WEIGHT", help="How often a category is drawn; again for others (default 1 each)."),
    ] = None,
) -> None:
    r"""Train RECIPE on clean photographs that are degraded on the fly; options override the recipe.

    -o receives the recipe, the last state (--resume continues it), the validation history and weights/, a checkpoint
    folder that `f2d restore --model` takes. Needs: pip install "f2d\[train]"
    """
    if not data.is_dir():
        fail(f"{data}: no such folder")
    check_no_file(target)
    categories = dict(_category(text) for text in category or ())
    try:
        from f2d.training.fit import fit
        from f2d.training.recipe import Recipe
    except ModuleNotFoundError as missing:
        if missing.name not in ("lightning", "yaml"):
            raise
        fail(f'f2d train needs {missing.name}, which is not installed: pip install "f2d[train]"')

    # advertisements, and a second line after Ctrl-C
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    overrides = {
        "model": model,
        "initial": initial,
        "steps": steps,
        "batch_size": batch_size,
        "crop": crop,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
        "workers": workers,
        "validate_every": validate_every,
        "categories": categories or None,
    }
    fit(Recipe.load(recipe, **overrides), data, target, resume=resume)
    out.print(f"weights in {escape(str(target / 'weights'))}")


def _category(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise ValueError(f"--category {text}: give NAME=WEIGHT, such as low_haze_rain=2") from None
