"""Write the card of one image: the comparison, its numbers, and its maps."""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from f2d.evaluation.case import Case, Pixels
from f2d.images import image_to_tensor, to_picture
from f2d.metrics.measure import About
from f2d.report.details import Details
from f2d.report.gather import Method
from f2d.report.maps import Error, Scales, drawn_gates, drawn_group, error_group, error_of, image, model_groups
from f2d.report.markup import Markup, element
from f2d.report.numbers import heading
from f2d.report.pictures import MAPS, PHOTOGRAPHS, Encoded, encode_within
from f2d.report.results import INPUT
from f2d.report.tables import columns, marked, numbers, row, table

GROUND_TRUTH = "Ground truth"
FOR_PHOTOGRAPHS = 0.75  # share of a card's characters; the maps get the rest


class Shown(NamedTuple):
    """An image with everything that its card shows. photographs: in the order of `sources`, their names. errors: by
    method, None without a ground truth. details: by method, None if its model did not run. size: (width, height) of the
    files."""

    case: Case
    photographs: Encoded
    sources: tuple[str, ...]
    errors: tuple[Error | None, ...]
    details: tuple[Details | None, ...]
    size: tuple[int, int]


def prepare(
    case: Case, pixels: Pixels, methods: Sequence[Method], details: Sequence[Details | None], budget: float
) -> Shown:
    """Read the restorations of an image, and encode them with input and ground truth in a share of `budget` characters.

    The share is `FOR_PHOTOGRAPHS`. Raises `f2d.images.ImageError` if a file cannot be read, and ValueError if a
    restoration does not have the size of its input.
    """
    restored = [image_to_tensor(method.folder.restored(case.name)) for method in methods]
    for method, one in zip(methods, restored):
        if one.shape != pixels.degraded.shape:
            raise ValueError(
                f"{method.folder.restored(case.name)} does not have the size of its input, so evaluate again"
            )
    sources = [(INPUT, pixels.degraded), *((method.name, one) for method, one in zip(methods, restored))]
    sources += [] if pixels.clean is None else [(GROUND_TRUTH, pixels.clean)]
    pictures = [to_picture(tensor) for _, tensor in sources]
    return Shown(
        case,
        encode_within(pictures, FOR_PHOTOGRAPHS * budget, PHOTOGRAPHS),
        tuple(name for name, _ in sources),
        tuple(None if pixels.clean is None else error_of(one, pixels.clean) for one in restored),
        tuple(details),
        pictures[0].size,
    )


def card(shown: Shown, methods: Sequence[Method], measures: Sequence[About], scales: Scales, budget: float) -> Markup:
    """Write the card of an image; its maps get the part of `budget` (in characters) that the photographs left."""
    name, prefixed = shown.case.name, len(methods) > 1
    errors = [(method.name, error) for method, error in zip(methods, shown.errors) if error is not None]
    told = [(f"{m.name}: " if prefixed else "", d) for m, d in zip(methods, shown.details) if d is not None]
    groups = [error_group(errors, scales)] if errors else []
    groups += [group for prefix, details in told for group in model_groups(details, scales, shown.size, prefix)]
    pictures = [panel.picture for group in groups for panel in group.panels]
    left = iter(encode_within(pictures, budget - shown.photographs.characters, MAPS).pictures if pictures else ())
    drawn = [drawn_group(group, left) for group in groups]
    drawn += [drawn_gates(details, prefix) for prefix, details in told if details.factors]
    return element(
        "article",
        element("header", element("h3", name), element("span", shown.case.category, class_="chip")),
        element("div", _stage(shown), _numbers(shown, methods, measures), class_="pair"),
        element("div", *drawn, class_="groups"),
        class_="picture",
        tabindex=-1,
        aria_label=name,
        data_category=shown.case.category,
        data_scores=_scores(shown.case, methods, measures),
    )


def _stage(shown: Shown) -> Markup:
    """Stack the images, with the slider that divides the left one from the right one."""
    layers = []
    for i, (source, inline) in enumerate(zip(shown.sources, shown.photographs.pictures)):
        inside = (image(inline, f"{source}: {shown.case.name}"), element("figcaption", source))
        side = (" left", " right")[i] if i < 2 else ""
        layers.append(element("figure", *inside, class_=f"layer{side}", data_source=source))
    label = f"Divider of {shown.case.name}"
    slider = element("input", type="range", min=0, max=100, step=1, value=50, aria_label=label)
    handle = element("span", class_="handle", aria_hidden="true")
    first = shown.photographs.pictures[0]
    return element("div", *layers, handle, slider, class_="stage", style=f"--w:{first.width};--h:{first.height}")


def _numbers(shown: Shown, methods: Sequence[Method], measures: Sequence[About]) -> Markup:
    records = [method.records[shown.case.name] for method in methods]
    head = columns("Measure") + columns(INPUT, *(method.name for method in methods), number=True)
    rows = []
    for about in measures:
        given = next((record.input[about.key] for record in records if about.key in record.input), None)
        values = [given, *(record.values.get(about.key) for record in records)]
        rows.append(row(heading(about), *marked(values, about)))
    rows.append(row("Seconds", *numbers("–", *(f"{record.seconds:.3g}" for record in records))))
    (width, height), at = shown.size, shown.photographs.pictures[0]
    note = (
        f"Measured at {width} × {height} pixels. "
        f"Shown at {at.width} × {at.height} pixels, as WebP of quality {shown.photographs.quality}."
    )
    drawn = table(f"Measures of {shown.case.name}", head, rows)
    return element("div", drawn, element("p", note, class_="note"), class_="numbers")


def _scores(case: Case, methods: Sequence[Method], measures: Sequence[About]) -> str:
    """Write JSON [method][measure], null if a value is missing, by which the page orders its cards."""

    def score(method: Method, about: About) -> float | None:
        value = method.records[case.name].values.get(about.key, math.nan)
        # JSON has no infinity; 1e300 orders as one
        return None if math.isnan(value) else max(-1e300, min(1e300, value))

    return json.dumps([[score(method, about) for about in measures] for method in methods])
