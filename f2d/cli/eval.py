"""`f2d eval`: evaluate a model, or another method's images, on a dataset, by the measures of the papers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from f2d.cli.console import FAILED, bar_of, one_line_errors, out, report_error, shown, tidy_when_terminated, up
from f2d.cli.files import check_no_file
from f2d.cli.options import Device, PrecisionOption, SamplerOption, Seed, Steps
from f2d.cli.quantities import names
from f2d.cli.ranks import Place, finish, own_device, place_here

if TYPE_CHECKING:
    from f2d.evaluation.evaluation import Evaluation


@one_line_errors
def evaluate(
    method: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Preset, checkpoint folder, owner/name on the Hugging Face Hub, or a folder of restored images.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA", help="Data folder, or a dataset by name, for example cdd-11=FOLDER.", show_default=False
        ),
    ],
    target: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    convention: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Conventions for PSNR and SSIM, separated by commas, or all: onerestore, moce-ir, promptir, f2dnet, "
            "ir-sde, weatherbench (default: the dataset's own).",
            show_default=False,
        ),
    ] = None,
    measures: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Further measures, separated by commas, or all: mae, sharpness, niqe, affine-psnr, change, spread, "
            "st-lpips, lpips, dists, fid, musiq, clip-iqa.",
        ),
    ] = "mae,niqe",
    name: Annotated[str | None, typer.Option(help="Name of the method in tables.", show_default=False)] = None,
    steps: Steps = None,
    sampler: SamplerOption = None,
    seed: Seed = 0,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only evaluate the first images of each category, at most this many.", show_default=False
        ),
    ] = None,
    stlpips: Annotated[
        Path | None, typer.Option(help="Weights file of ST-LPIPS (alex_shift_tolerant.pth).", show_default=False)
    ] = None,
    images: Annotated[bool, typer.Option(help="Store the restored images, which f2d report needs.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Overwrite an evaluation in -o, whatever its settings.")
    ] = False,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Evaluate MODEL on --data: PSNR, SSIM and more in the papers' conventions, with their published results.

    -o receives results.json, results.csv, results.md, speed.json, and each image's record and restoration. An
    interrupted evaluation resumes when rerun. If images cannot be evaluated, they are listed and counted, the others
    are evaluated, and the exit code is 1. Under torchrun (or any launcher that sets RANK and WORLD_SIZE) the images are
    split among the processes, whose results are byte-identical to those of one process.
    """
    check_no_file(target)
    from f2d.evaluation.evaluation import Evaluation, Request

    place = place_here()
    request = Request(
        method,
        data,
        conventions=names(convention, "--convention", "onerestore,f2dnet") or (),
        measures=names(measures, "--measures", "mae,niqe") or (),
        name=name,
        steps=steps,
        sampler=sampler,
        seed=seed,
        limit=limit,
        device=own_device(device, place),
        precision=precision,
        stlpips_weights=stlpips,
        keep_images=images,
    )
    evaluation = Evaluation(request, target, overwrite=overwrite)
    evaluation.folder.create()
    with tidy_when_terminated():
        failed = _run(evaluation, place)
        failed |= _finish(evaluation, place)
    finish(place, failed=failed)
    if failed:
        raise typer.Exit(FAILED)


def _run(evaluation: "Evaluation", place: Place) -> bool:
    """Evaluate the images of `place`'s share; return whether one of them failed."""
    cases = evaluation.data.cases
    mine = evaluation.remaining(place.share(cases))
    if not place.rank:
        out.print(
            f"{shown(evaluation.folder.settings.name)} on {shown(evaluation.data.title)}: {len(cases)} pictures"
            + (f", {evaluation.execution}" if evaluation.folder.settings.model else "")
        )
        for problem in evaluation.data.problems:
            report_error(problem)
    if not mine:
        return False
    failed = False
    bar = bar_of("evaluating", len(mine))
    with up(bar, place.rank == 0):
        for record in evaluation.run(mine):
            if record.error:
                report_error(f"{record.name}: {record.error}")
                failed = True
            bar.advance(bar.task_ids[0])
    return failed


def _finish(evaluation: "Evaluation", place: Place) -> bool:
    """Write and print the results, and return whether anything is missing from them.

    Of several processes, each one that finds the records of all images writes the results, which are the same bytes;
    the others say how many images are still missing.
    """
    from f2d.evaluation.tables import terminal_table

    records = evaluation.records()
    if place.world > 1 and (missing := records.count(None)):
        out.print(
            f"rank {place.rank} of {place.world} is done; {missing} images are still missing, and the process that "
            "completes them writes the results"
        )
        return False
    summary = evaluation.finish(records)
    out.print(terminal_table(evaluation.folder.settings, summary))
    problems = len(evaluation.data.problems)
    out.print(
        f"{len(evaluation.data.cases) - len(summary.failed)} evaluated, {len(summary.failed)} failed, {problems} "
        f"data problems; results in {shown(evaluation.folder.path)}"
    )
    return bool(summary.failed or problems)
