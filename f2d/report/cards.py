"""Prepare the card of one image: the photographs to compare, and its maps."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from f2d.evaluation.case import Case, Pixels
from f2d.images import image_to_tensor, to_picture
from f2d.metrics.measure import About
from f2d.report.details import Details
from f2d.report.gather import INPUT, Method
from f2d.report.maps import Error, Group, Scales, error_group, error_of, model_groups
from f2d.report.pictures import MAPS, PHOTOGRAPHS, Encoded, encode_within

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


class Card(NamedTuple):
    """A card to write. groups: the maps, encoded. gates: a prefix for the title, and the details with the gates over
    time. scores: JSON [method][measure], by which the page orders its cards; null if a value is missing."""

    shown: Shown
    groups: list[Group]
    gates: list[tuple[str, Details]]
    scores: str


def card(shown: Shown, methods: Sequence[Method], measures: Sequence[About], scales: Scales, budget: float) -> Card:
    """Draw the maps of an image; they get the part of `budget` (in characters) that the photographs left."""
    prefixed = len(methods) > 1
    errors = [(method.name, error) for method, error in zip(methods, shown.errors) if error is not None]
    told = [(f"{m.name}: " if prefixed else "", d) for m, d in zip(methods, shown.details) if d is not None]
    groups = [error_group(errors, scales)] if errors else []
    groups += [group for prefix, details in told for group in model_groups(details, scales, shown.size, prefix)]
    pictures: list[Any] = [panel.picture for group in groups for panel in group.panels]
    left = iter(encode_within(pictures, budget - shown.photographs.characters, MAPS).pictures if pictures else ())
    encoded = [
        group._replace(panels=tuple(panel._replace(picture=next(left)) for panel in group.panels)) for group in groups
    ]
    gates = [(prefix, details) for prefix, details in told if details.factors]
    scores = [[_score(method, shown.case, about) for about in measures] for method in methods]
    return Card(shown, encoded, gates, json.dumps(scores))


def _score(method: Method, case: Case, about: About) -> float | None:
    value = method.records[case.name].values.get(about.key, math.nan)
    # JSON has no infinity; 1e300 orders as one
    return None if math.isnan(value) else max(-1e300, min(1e300, value))
