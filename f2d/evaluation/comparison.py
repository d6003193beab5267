"""Compare methods on the images that all of them have, with confidence intervals of the differences."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose, nan
from typing import NamedTuple

from f2d.data.pool import in_order
from f2d.evaluation.bootstrap import RESAMPLES, Interval, paired
from f2d.evaluation.experts import ExpertLine, expert_lines, lacking
from f2d.evaluation.folder import EvaluationFolder, names_of
from f2d.evaluation.presets import PRESETS
from f2d.evaluation.record import Record
from f2d.evaluation.summary import Row, Tiers, summarize
from f2d.metrics.measure import About

_SAME = 1e-3  # tolerance for measures of the input: devices differ by about 1e-5, other images by far more


class Line(NamedTuple):
    """One row of a measure's table: each method's mean, and the intervals of the differences from the first method.

    scenes: number of clean photographs that the images are made from, which are what the bootstrap draws.
    """

    name: str
    kind: str
    images: int
    scenes: int
    means: tuple[float, ...]
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`. lines: the rows of each measure, by its key. left_out: image -> the reason why it is
    excluded. absent: the categories all of whose images are excluded, which have no row. skipped: measure -> the reason
    why it is not compared. undefined: measure -> number of images for which it is undefined for some method; its rows
    exclude them. experts: the numbers about the methods' experts. without: method -> the reasons why it lacks some of
    them.
    """

    data: str
    methods: tuple[str, ...]
    measures: tuple[About, ...]
    lines: dict[str, tuple[Line, ...]]
    pictures: int
    left_out: dict[str, str]
    absent: tuple[str, ...]
    skipped: dict[str, str]
    undefined: dict[str, int]
    experts: tuple[ExpertLine, ...]
    without: dict[str, tuple[str, ...]]


def compare(
    folders: Sequence[EvaluationFolder], measures: Sequence[str] = (), resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compute each method's means over the common images, and the differences from the first method.

    Rows are categories, tiers and "all", as in `summarize`; intervals are those of `f2d.evaluation.bootstrap.paired`.
    measures are keys; by default all common measures are compared. The methods' experts are compared by
    `f2d.evaluation.experts.expert_lines`.

    Raises ValueError for fewer than two folders, different datasets, no common image or measure, a measure that some
    evaluation lacks, and images that have the same name but are not the same image.
    """
    if len({folder.path.resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError("compare needs two or more different evaluations")
    methods = names_of(folders)
    data = _data(folders, methods)
    records, left_out, absent = _common_records(folders, methods)
    for name in records[0]:
        _check_same(name, [of[name] for of in records], methods)
    abouts, skipped = _common_measures(folders, methods, records)
    unknown = [key for key in measures if key not in {about.key for about in abouts}]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: not measured in every evaluation, unlike {', '.join(a.key for a in abouts)}"
        )
    chosen = tuple(about for about in abouts if not measures or about.key in measures)
    tiers = PRESETS[data].tiers if data in PRESETS else ()
    scenes = {name: record.scene for name, record in records[0].items()}
    tables = {about.key: _lines(about.key, records, scenes, tiers, resamples, seed) for about in chosen}
    undefined = {key: len(records[0]) - lines[-1].images for key, lines in tables.items()}
    experts = expert_lines(records, scenes, resamples, seed)
    without = {
        method: tuple(dict.fromkeys(lacking(of, *line[:2]) for line in experts if line.estimates[i] is None))
        for i, (method, of) in enumerate(zip(methods, records))
    }
    return Comparison(
        data,
        methods,
        chosen,
        tables,
        len(records[0]),
        left_out,
        absent,
        skipped,
        {key: count for key, count in undefined.items() if count},
        experts,
        {method: reasons for method, reasons in without.items() if reasons},
    )


def _data(folders: Sequence[EvaluationFolder], methods: Sequence[str]) -> str:
    """Return the dataset that all evaluations use; its folder may differ."""
    presets = [folder.settings.data.partition("=")[0] for folder in folders]
    if len(set(presets)) > 1:
        said = ", ".join(f"{method} on {preset}" for method, preset in zip(methods, presets))
        raise ValueError(f"the evaluations use different datasets: {said}")
    return presets[0]


def _common_records(
    folders: Sequence[EvaluationFolder], methods: Sequence[str]
) -> tuple[list[dict[str, Record]], dict[str, str], tuple[str, ...]]:
    """Return each folder's records by name that all folders have, why the others are excluded, and the categories of
    which none is left."""
    found = []
    for folder in folders:
        found.append({name: record for name in folder.names() if (record := folder.record(name)) is not None})
    left_out = {}
    for name in sorted(set().union(*found)):
        reasons = []
        for method, records in zip(methods, found):
            record = records.get(name)
            if record is None:
                reasons.append(f"{method} has none")
            elif record.error is not None:
                reasons.append(f"{method}: {record.error}")
        if reasons:
            left_out[name] = "; ".join(reasons)
    common = [{name: record for name, record in of.items() if name not in left_out} for of in found]
    if not common[0]:
        counts = ", ".join(f"{method} {len(records)}" for method, records in zip(methods, found))
        raise ValueError(f"no image was measured in every evaluation (images: {counts})")
    categories = {record.category for of in found for record in of.values()}
    return common, left_out, in_order(categories - {record.category for record in common[0].values()})


def _check_same(name: str, records: Sequence[Record], methods: Sequence[str]) -> None:
    """Raise ValueError unless the records have the same input, judged by its size and its measures."""
    first = records[0]
    for method, record in zip(methods[1:], records[1:]):
        if (record.width, record.height) != (first.width, first.height):
            sizes = f"{first.width}x{first.height} and {record.width}x{record.height}"
            raise ValueError(f"{name} is not the same image: {sizes} in {methods[0]} and {method}")
        for key in first.input.keys() & record.input.keys():
            ours, theirs = first.input[key], record.input[key]
            if not (isclose(ours, theirs, rel_tol=_SAME, abs_tol=_SAME) or ours != ours or theirs != theirs):
                raise ValueError(
                    f"{name} is not the same image: before restoration its {key} is {ours:g} in {methods[0]} and "
                    f"{theirs:g} in {method}"
                )


def _common_measures(
    folders: Sequence[EvaluationFolder], methods: Sequence[str], records: Sequence[dict[str, Record]]
) -> tuple[list[About], dict[str, str]]:
    """Return the measures of single images that all evaluations have, and the reasons why others are skipped."""
    lists = [folder.settings.measures for folder in folders]
    measured = {key for of in records for record in of.values() for key in record.values}
    common, skipped = [], {}
    for about in dict.fromkeys(about for measures in lists for about in measures):
        lacking = [method for method, measures in zip(methods, lists) if about not in measures]
        if lacking:
            skipped[about.key] = f"not measured alike in {', '.join(lacking)}"
        elif about.key not in measured:
            skipped[about.key] = "no picture has a number of its own"
        else:
            common.append(about)
    if not common:
        raise ValueError(
            "the evaluations have no measure in common (run f2d eval with the same --convention, --measures)"
        )
    return common, skipped


def _lines(
    key: str,
    records: Sequence[dict[str, Record]],
    scenes: dict[str, str],
    tiers: Tiers,
    resamples: int,
    seed: int,
) -> tuple[Line, ...]:
    """Return the rows of one measure; an image for which any method's value is undefined is excluded for all."""
    names = list(records[0])
    values = {name: [of[name].values.get(key, nan) for of in records] for name in names}
    defined = {name: not any(value != value for value in values[name]) for name in names}
    summaries, differences = [], []
    for i, of in enumerate(records):
        mine = {name: values[name][i] if defined[name] else nan for name in names}
        summaries.append(
            summarize([Record(name, of[name].category, values={key: mine[name]}) for name in names], tiers)
        )
        by_category: dict[str, dict[str, float]] = defaultdict(dict)
        for name in filter(defined.get, names):
            first, own = values[name][0], values[name][i]
            # both values can be infinite (no error at all), and then they are equal
            by_category[of[name].category][name] = 0.0 if first == own else own - first
        differences.append(by_category)
    return tuple(
        Line(
            rows[0].name,
            rows[0].kind,
            rows[0].images - rows[0].undefined.get(key, 0),
            len({scenes[name] for c in rows[0].categories for name in differences[0].get(c, ())}),
            tuple(row.values[key] for row in rows),
            tuple(_interval(rows[0], by_category, scenes, resamples, seed) for by_category in differences[1:]),
        )
        for rows in zip(*(summary.rows for summary in summaries))
    )


def _interval(
    row: Row, differences: dict[str, dict[str, float]], scenes: dict[str, str], resamples: int, seed: int
) -> Interval:
    if any(category not in differences for category in row.categories):
        return Interval(nan, nan, nan, nan)
    return paired({category: differences[category] for category in row.categories}, resamples, seed, scenes=scenes)
