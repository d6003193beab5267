"""`f2d convert`: turn the authors' published checkpoints and LMDBs into this package's formats."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from f2d.cli.console import err, fail, one_line_errors, out, shown
from f2d.cli.files import check_folder_writable, check_free, check_no_file
from f2d.cli.options import Overwrite


@one_line_errors
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Official checkpoint (.pt) or LMDB folder.", show_default=False)
    ],
    target: Annotated[Path, typer.Option("--out", "-o", help="Output folder.", show_default=False)],
    weights: Annotated[
        Literal["ema", "model"] | None,
        typer.Option(help="Which weights of a checkpoint to use: ema (their moving average; default) or model."),
    ] = None,
    factors: Annotated[
        str | None,
        typer.Option(
            help="Factor names of a checkpoint, if they are not the published ones, for example noise,haze,rain."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    r"""Convert an official checkpoint to a folder for --model, or an LMDB to folders of PNG files.

    An LMDB becomes a folder `clear` and one folder for each category, which is the layout of CDD-11. Existing files are
    kept, so an interrupted conversion can simply be rerun. Pickled data is read without executing any code in it. LMDBs
    need: pip install "f2d\[train]"
    """
    if not source.exists():
        fail(f"{source}: no such file or folder")
    check_no_file(target)
    if source.is_dir():
        if weights is not None or factors is not None:
            fail(f"{source}: is a folder, but --weights and --factors only apply to checkpoints (.pt)")
        _unpack(source, target, overwrite)
    else:
        _checkpoint(source, target, weights or "ema", factors, overwrite)


def _unpack(source: Path, target: Path, overwrite: bool) -> None:
    from f2d.data.lmdb import FILE, is_lmdb
    from f2d.data.unpacking import unpack

    if not is_lmdb(source):
        fail(f"{source}: must be a checkpoint (.pt) or an LMDB folder, but has no {FILE}")
    check_folder_writable(target)
    with err.status("reading") as status:
        try:
            written, kept = unpack(
                source, target, overwrite=overwrite, each=lambda done, of: status.update(f"{done} of {of}")
            )
        except ModuleNotFoundError as missing:
            fail(missing)
    out.print(f"{shown(target)}: {written} pictures written" + (f", {kept} kept" if kept else ""))


def _checkpoint(source: Path, target: Path, weights: str, factors: str | None, overwrite: bool) -> None:
    from f2d.checkpoints import CONFIG, MODEL
    from f2d.nets import F2DNet

    check_free([target / CONFIG, target / MODEL], overwrite=overwrite)
    names = None if factors is None else tuple(name.strip() for name in factors.split(","))
    net = F2DNet.from_official(source, weights, names)
    check_folder_writable(target)
    net.save_pretrained(target)
    out.print(f"{shown(target)}: {', '.join(net.config.factors)}, {sum(p.numel() for p in net.parameters()):,} weights")
