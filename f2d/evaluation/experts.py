"""Compare the experts of several methods: selectivity, and the correlation of their maps with ground-truth masks."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from f2d.evaluation.bootstrap import Estimate, ratio
from f2d.evaluation.record import Record
from f2d.metrics.selectivity import DEFINITIONS, EPSILON

SELECTIVITY, CORRELATION = "selectivity", "map correlation"

Pairs = dict[str, tuple[float, float]]  # image -> (a, b), for sum a / sum b over the images


class ExpertLine(NamedTuple):
    """One number about experts, for each method: `estimates` has None for methods without it.

    measure is "selectivity", and row a definition of `f2d.metrics.selectivity`; or measure is "map correlation", and
    row a factor. images: number of images for which all of the methods that have this number have a value.
    """

    measure: str
    row: str
    images: int
    estimates: tuple[Estimate | None, ...]


def expert_lines(
    records: Sequence[Mapping[str, Record]], scenes: Mapping[str, str], resamples: int, seed: int
) -> tuple[ExpertLine, ...]:
    """Compute each method's selectivity ratios and map correlations, with `f2d.evaluation.bootstrap.ratio`'s intervals.

    records: those of each method, by image. scenes: image -> scene. A selectivity is mean numerator over mean
    denominator, as in `f2d.metrics.selectivity.ratios`; a correlation is the mean over the images in which the factor
    is present, as in `f2d.metrics.localisation.localisation`. Both give images, not categories, the same weight. Each
    method has an interval of its own instead of one of the difference, because ratios of 1 and of 100 do not vary on
    one scale.
    """
    rows = [(SELECTIVITY, name) for name in DEFINITIONS]
    factors = dict.fromkeys(name for of in records for record in of.values() for name in record.localisation)
    rows += [(CORRELATION, factor) for factor in factors]
    lines = []
    for measure, row in rows:
        pairs = [_pairs(of, measure, row) for of in records]
        with_values = [set(found) for found in pairs if found]
        if with_values:
            common = set.intersection(*with_values)
            estimates = tuple(
                _estimate(found, common, scenes, resamples, seed) if found and common else None for found in pairs
            )
            lines.append(ExpertLine(measure, row, len(common), estimates))
    return tuple(lines)


def lacking(records: Mapping[str, Record], measure: str, row: str) -> str:
    """Say why a method lacks a number about experts that another method has."""
    of_all = records.values()
    if not any(record.gates for record in of_all):
        return "has no factors, so it has neither a selectivity nor maps"
    if _pairs(records, measure, row):
        return f"has the {measure} {row}, but in no image for which the others have it too"
    if measure == SELECTIVITY:
        return f"has no selectivity {row}"
    if not any(record.localisation for record in of_all):
        return "has one gate per image and no maps"
    if any(row in record.localisation for record in of_all):
        return f"has no map correlation {row}, because its map is constant in every image"
    return f"has no factor {row}"


def _pairs(records: Mapping[str, Record], measure: str, row: str) -> Pairs:
    found: Pairs = {}
    for name, record in records.items():
        if measure == SELECTIVITY:
            if row in record.selectivity:
                above, below = record.selectivity[row]
                found[name] = above, below + EPSILON
        elif row in record.localisation:
            found[name] = record.localisation[row].correlation, 1.0
    return {name: pair for name, pair in found.items() if all(map(isfinite, pair))}


def _estimate(pairs: Pairs, names: set[str], scenes: Mapping[str, str], resamples: int, seed: int) -> Estimate:
    by_category: dict[str, Pairs] = {}
    for name in names:
        by_category.setdefault(name.partition("/")[0], {})[name] = pairs[name]
    return ratio(by_category, resamples, seed, scenes=scenes)
