"""Gather the content of a page: the evaluations, their common measures, and the images to show."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from f2d.evaluation.case import Case
from f2d.evaluation.datasets import DataSet, open_data
from f2d.evaluation.folder import EvaluationFolder, Settings, names_of
from f2d.evaluation.published import PublishedTable, tables
from f2d.evaluation.record import Record
from f2d.evaluation.summary import Row, Summary, of_all, summarize
from f2d.evaluation.tables import RESULTS
from f2d.metrics.measure import About

INPUT, OTHERS = "Input", "Other measures"
MOST = 6  # methods on one page; more colours could not be told apart


class Method(NamedTuple):
    """One evaluation. name: unique on the page. records: by case, those with results; failed: those without. over_sets:
    by key, the measures of all restorations together, such as FID."""

    name: str
    folder: EvaluationFolder
    records: dict[str, Record]
    failed: tuple[Record, ...]
    summary: Summary
    over_sets: dict[str, float]

    @property
    def settings(self) -> Settings:
        return self.folder.settings

    @property
    def options(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings.options.items() if value is not None)

    @property
    def seconds(self) -> float:
        """The mean per image; 0 for outputs of another method, which nobody timed here."""
        return fmean(record.seconds for record in self.records.values())

    @property
    def peak(self) -> int:
        """The peak memory in bytes, of the images that were timed; 0 if none was."""
        return self.summary.speed.peak_memory if self.summary.speed else 0

    def row(self, kind: str, name: str) -> Row | None:
        """Return a row of the summary, None if it has none of that name."""
        return next((row for row in self.summary.rows if (row.kind, row.name) == (kind, name)), None)


class Column(NamedTuple):
    """A column of every measure. kind: the class of its colour. methods: the first that has a value gives it, for its
    input if `of_input`, otherwise for its restorations."""

    name: str
    kind: str
    methods: Sequence[Method]
    of_input: bool = False

    def value(self, kind: str, name: str, about: About) -> float | None:
        rows = [row for method in self.methods if (row := method.row(kind, name)) is not None]
        found = ((row.input if self.of_input else row.values).get(about.key) for row in rows)
        return next((value for value in found if value is not None and value == value), None)


class Convention(NamedTuple):
    """A convention with its description; text is "" for measures without a convention."""

    name: str
    text: str
    measures: tuple[About, ...]


class Content(NamedTuple):
    """The content of a page. absent: measure -> the reason why no evaluation has it. cases: the images to show.
    changed: the names of images whose files have changed since an evaluation, which are not shown."""

    data: DataSet
    methods: tuple[Method, ...]
    conventions: tuple[Convention, ...]
    absent: dict[str, str]
    published: tuple[PublishedTable, ...]
    cases: tuple[Case, ...]
    changed: tuple[str, ...]

    @property
    def measures(self) -> tuple[About, ...]:
        """The measures, each once; those with the same title include their convention."""
        found = {about.key: (about, convention) for convention in self.conventions for about in convention.measures}
        titles = Counter(about.title for about, _ in found.values())
        return tuple(
            about if titles[about.title] == 1 else about._replace(title=f"{about.title}, {convention.name}")
            for about, convention in found.values()
        )

    @property
    def columns(self) -> list[Column]:
        methods = [Column(method.name, f"method-{k}", (method,)) for k, method in enumerate(self.methods)]
        return [Column(INPUT, "input", self.methods, of_input=True), *methods]

    @property
    def places(self) -> dict[str, list[str]]:
        """The names of all rows by kind: category, tier, all."""
        rows = [row for method in self.methods for row in method.summary.rows]
        several = len({row.name for row in rows if row.kind == "category"}) > 1  # otherwise the averages equal it
        kinds = ("category", "tier", "all") if several else ("category",)
        found = {kind: list(dict.fromkeys(row.name for row in rows if row.kind == kind)) for kind in kinds}
        return {kind: names for kind, names in found.items() if names}

    def values(self, kind: str, name: str, about: About) -> list[float | None]:
        """Return the values of a measure in a row, one for each column."""
        return [column.value(kind, name, about) for column in self.columns]

    def counts(self, kind: str, name: str) -> str:
        """Return the number of images of a row, by method if they differ."""
        rows = [method.row(kind, name) for method in self.methods]
        counts = [0 if row is None else row.images for row in rows]
        return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))

    def values_of(self, case: str, about: About) -> list[float | None]:
        """Return the values of a measure for one image, one for each column."""
        records = [method.records[case] for method in self.methods]
        given = next((record.input[about.key] for record in records if about.key in record.input), None)
        return [given, *(record.values.get(about.key) for record in records)]

    @property
    def part(self) -> str:
        """Say so if the averages are not those of the whole dataset."""
        part = self.data.problems or any(of.failed or of.settings.options.get("limit") for of in self.methods)
        return ", but ours is of a part of the data" if part else ""

    @property
    def of_sets(self) -> list[About]:
        """The measures of all images together that some evaluation has."""
        known = {about.key: about for method in self.methods for about in method.settings.measures}
        return [about for key, about in known.items() if any(key in method.over_sets for method in self.methods)]

    def set_values(self, about: About) -> list[float | None]:
        return [method.over_sets.get(about.key) for method in self.methods]

    @property
    def ratios(self) -> list[str]:
        """The names of the selectivity ratios that some evaluation has."""
        return list(dict.fromkeys(name for method in self.methods for name in method.summary.selectivity))

    @property
    def failures(self) -> list[str]:
        """One line for each problem of the data, and for each image without results."""
        told = [f"Data: {problem}" for problem in self.data.problems]
        return told + [f"{method.name}: {one.name}: {one.error}" for method in self.methods for one in method.failed]


def gather(folders: Sequence[Path], images: int) -> Content:
    """Open the evaluations in `folders` and choose at most `images` images to show.

    Raises ValueError if a folder holds no evaluation or no results, if the evaluations use different data, or if they
    define a convention differently.
    """
    if len(folders) > MOST:
        raise ValueError(f"there are {len(folders)} evaluations, but one page compares at most {MOST}")
    opened = [EvaluationFolder.open(folder) for folder in folders]
    _check_comparable(opened)
    first = opened[0].settings
    data = open_data(first.data, first.options.get("limit"))
    methods = tuple(_method(name, folder, data) for name, folder in zip(names_of(opened), opened))
    common = [
        case
        for case in data.cases
        if all(case.name in method.records and method.folder.restored(case.name).is_file() for method in methods)
    ]
    changed = [
        case
        for case in data.cases
        if any(case.name in of.records and case.changed_since(of.records[case.name]) for of in methods)
    ]
    return Content(
        data,
        methods,
        _conventions(methods),
        _absent([folder.settings for folder in opened]),
        tuple(tables(data.published)),
        choose([case for case in common if case not in changed], images),
        tuple(case.name for case in changed),
    )


def choose(cases: Sequence[Case], number: int) -> tuple[Case, ...]:
    """Choose `number` cases, spread evenly over the categories and within each; their order is kept."""
    by_category: dict[str, list[Case]] = {}
    for case in cases:
        by_category.setdefault(case.category, []).append(case)
    quotas: Counter[str] = Counter()
    for _ in range(min(number, len(cases))):
        open_ = [name for name, members in by_category.items() if quotas[name] < len(members)]
        quotas[min(open_, key=lambda name: quotas[name])] += 1
    chosen = set()
    for name, members in by_category.items():
        chosen |= {members[(2 * i + 1) * len(members) // (2 * quotas[name])].name for i in range(quotas[name])}
    return tuple(case for case in cases if case.name in chosen)


def _method(name: str, folder: EvaluationFolder, data: DataSet) -> Method:
    records = of_all(data.cases, [folder.record(case.name) for case in data.cases])
    done = {record.name: record for record in records if record.error is None}
    if not done:
        raise ValueError(f"{folder.path} has no results of any image yet, so finish it with f2d eval")
    failed = tuple(record for record in records if record.error is not None)
    return Method(name, folder, done, failed, summarize(records, data.tiers), _over_sets(folder))


def _check_comparable(folders: Sequence[EvaluationFolder]) -> None:
    first = folders[0]
    for folder in folders[1:]:
        if _data(folder) != _data(first):
            raise ValueError(
                f"{first.path} uses {_data(first)} and {folder.path} uses {_data(folder)}, "
                "but evaluations on one page must use the same data"
            )
        for name, convention in folder.settings.conventions.items():
            other = first.settings.conventions.get(name, convention)
            if other["text"] != convention["text"]:
                raise ValueError(
                    f"{first.path} and {folder.path} define {name} differently, so evaluate one of them again"
                )


def _data(folder: EvaluationFolder) -> str:
    limit = folder.settings.options.get("limit")
    return folder.settings.data if limit is None else f"{folder.settings.data} (limit {limit})"


def _over_sets(folder: EvaluationFolder) -> dict[str, float]:
    """Read the measures of the whole set; empty before the evaluation is finished."""
    try:
        found = json.loads((folder.path / f"{RESULTS}.json").read_text(encoding="utf-8"))["over_sets"]
        return {key: float(value) for key, value in found.items()}
    except (OSError, ValueError, KeyError):
        return {}


def _conventions(methods: Sequence[Method]) -> tuple[Convention, ...]:
    """Return every convention once, with the measures that any evaluation has, then the measures without one."""
    there = {key for method in methods for row in method.summary.rows for key in row.values}
    abouts = {about.key: about for method in methods for about in method.settings.measures if about.key in there}
    texts: dict[str, str] = {}
    keys: dict[str, dict[str, None]] = {}
    for method in methods:
        for name, convention in method.settings.conventions.items():
            texts[name] = convention["text"]
            keys.setdefault(name, {}).update(dict.fromkeys(convention["keys"]))
    of_some = {key for those in keys.values() for key in those}
    texts[OTHERS], keys[OTHERS] = "", dict.fromkeys(key for key in abouts if key not in of_some)
    found = [Convention(n, text, tuple(abouts[k] for k in keys[n] if k in abouts)) for n, text in texts.items()]
    return tuple(convention for convention in found if convention.measures)


def _absent(all_settings: Sequence[Settings]) -> dict[str, str]:
    # the key of a network's measure is its name, and the network's: lpips alex
    there = {about.key.partition(" ")[0] for settings in all_settings for about in settings.measures}
    return {name: reason for settings in all_settings for name, reason in settings.absent.items() if name not in there}
