"""`f2d degrade`: degrade a clean photograph and write its parameters and maps."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from f2d.cli.console import one_line_errors, out, shown
from f2d.cli.files import beside, check_free, check_output
from f2d.cli.options import Overwrite, Seed
from f2d.images import ImageError, Photo, check_holds, read, replacing, save_image, to_picture, write
from f2d.images.metadata import Metadata


@one_line_errors
def degrade(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="Clean photograph to degrade.", show_default=False)],
    target: Annotated[Path, typer.Option("--out", "-o", help="Image file to write.", show_default=False)],
    category: Annotated[
        str,
        typer.Option(
            help="Degradation: low, haze, rain, snow, or a combination such as low_haze_rain.", show_default=False
        ),
    ],
    seed: Seed = 0,
    maps: Annotated[bool, typer.Option("--maps", help="Also write the map of each factor.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Degrade PHOTO in the same way as training data, and write the parameters to a JSON file (-o with .json appended).

    To reproduce the image, call `f2d.degrade(photo, category, seed=seed)` with the category and seed in this file.
    Transparency and, for photos in colour, the ICC profile are kept.
    """
    check_output(target, overwrite=overwrite)
    source = read(photo)
    check_holds(source, target)

    import f2d_kernels
    from f2d import degradation

    record_path = target.with_name(f"{target.name}.json")
    all_maps = [beside(target, f"map_{factor}.png") for factor in degradation.FACTORS]
    map_paths = all_maps if maps else []
    check_free([record_path, *map_paths], overwrite=overwrite)
    if not maps and (left := [path for path in all_maps if path.exists()]):
        raise ImageError(f"{left[0]}: is a map of an earlier image, so pass --maps to replace it, or change -o")
    degraded = degradation.degrade(source.picture().convert("RGB"), category, seed=seed)
    said = source.metadata  # of grey: a profile that would not suit the colours of a degraded image
    colours = Metadata() if source.grey else Metadata(icc=said.icc, png=said.png, made=said.made)
    write(Photo(np.asarray(degraded.image), source.as_depth(8).alpha, colours), target)
    record = {
        "category": degraded.category,
        "seed": degraded.seed,
        "parameters": degraded.parameters,
        "source": photo.name,
        "f2d": f2d_kernels.__version__,
    }
    with replacing(record_path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    for path, values in zip(map_paths, degraded.maps):
        save_image(to_picture(values), path)
    for path in (target, record_path, *map_paths):
        out.print(shown(path))
