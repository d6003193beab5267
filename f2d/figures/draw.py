"""Draw all figures of a few cases of one or several evaluations."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from f2d.evaluation.case import Case
from f2d.evaluation.datasets import DataSet, open_data
from f2d.evaluation.folder import EvaluationFolder, names_of
from f2d.evaluation.method import load_evaluated
from f2d.evaluation.record import Record
from f2d.figures.experts import Acting, Experts, acting, gates, maps, weights
from f2d.figures.grid import save
from f2d.figures.panels import Crop, Shown, comparison, errors, show, trajectory
from f2d.transport import LogNormal

CASES = 4  # default number


def draw(
    evaluations: Sequence[Path],
    target: Path,
    names: Sequence[str],
    *,
    suffix: str = "png",
    steps: int = 10,
    crop: Crop | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> Iterator[Path]:
    """Write the figures into `target` and yield their paths.

    The figures are ``comparison``, ``errors`` if there is a ground truth, ``maps`` if there are ground-truth masks and
    experts, ``weights`` if factors are known and experts evaluated (over the images that all methods with gates have),
    and for every evaluated model ``NAME-gates`` (if it has experts) and ``NAME-trajectory`` of the first case (if its
    process is log-normal). Images whose files have changed since they were evaluated are in none of them.

    names: of cases; if empty, the first case of each of four evenly chosen categories. crop: the part of each image
    that ``comparison``, ``errors`` and ``maps`` show. Raises ValueError, before anything is drawn, for evaluations that
    are missing, use different data or lack a case, for a named case whose files have changed, and for files that exist.
    """
    folders = [EvaluationFolder.open(path) for path in evaluations]
    sources = {folder.settings.data for folder in folders}
    if len(sources) > 1:
        raise ValueError(f"these evaluations use different data: {', '.join(sorted(sources))}")
    methods = dict(zip(names_of(folders), folders))
    if len(methods) < len(folders):
        raise ValueError("an evaluation is listed twice, but each must be listed once")
    data = open_data(sources.pop())
    shown = [show(case, methods, crop) for case in _chosen(data, folders, names)]
    drawings = _drawings(methods, shown, steps, device)
    experts = _acting(data, methods)
    if any(experts.values()):
        drawings["weights"] = lambda: weights(experts)
    paths = {name: target / f"{_plain(name)}.{suffix}" for name in drawings}
    if len(set(paths.values())) < len(paths):
        raise ValueError(f"two of {', '.join(drawings)} would be the same file, so rename one with f2d eval --name")
    there = [str(path) for path in paths.values() if path.exists()]
    if there and not overwrite:
        raise ValueError(f"{', '.join(there)}: exists (--overwrite replaces it)")
    for name, drawing in drawings.items():
        save(drawing(), paths[name])
        yield paths[name]


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _chosen(data: DataSet, folders: Sequence[EvaluationFolder], names: Sequence[str]) -> list[Case]:
    by_name = {case.name: case for case in data.cases}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(
            f"{data.title} has no {', '.join(unknown)} (results.csv lists the names, such as {data.cases[0].name})"
        )
    if names:
        return [by_name[name] for name in names]
    done = [
        case
        for case in data.cases
        if all(_current(case, folder) and folder.restored(case.name).is_file() for folder in folders)
    ]
    first = {case.category: case for case in reversed(done)}
    rows = [category for category in data.categories if category in first]
    if not rows:
        raise ValueError("no image was restored in all of these evaluations from its files as they are now")
    picked = dict.fromkeys(rows[round(i * (len(rows) - 1) / (CASES - 1))] for i in range(CASES))
    return [first[category] for category in picked]


def _current(case: Case, folder: EvaluationFolder) -> Record | None:
    """Return the record of a case if it has measurements, and these are of the files as they are now."""
    record = folder.record(case.name)
    return None if record is None or record.error is not None or case.changed_since(record) else record


def _acting(data: DataSet, methods: Mapping[str, EvaluationFolder]) -> dict[str, list[Acting]]:
    """Return `acting` of every method, over the images for which all methods with experts have effective gates."""
    found = {
        name: {c: record for c in data.cases if (record := _current(c, folder)) and record.effective}
        for name, folder in methods.items()
    }
    with_experts = [set(records) for records in found.values() if records]
    common = set.intersection(*with_experts) if with_experts else set()
    return {
        name: acting((case, record) for case, record in records.items() if case in common)
        for name, records in found.items()
    }


def _drawings(
    methods: Mapping[str, EvaluationFolder], shown: list[Shown], steps: int, device: str
) -> dict[str, Callable[[], Figure]]:
    found: dict[str, Callable[[], Figure]] = {"comparison": lambda: comparison(shown)}
    if any(case.clean is not None for case in shown):
        found["errors"] = lambda: errors(shown)
    experts: dict[str, Experts] = {}
    for name, folder in methods.items():
        settings = folder.settings
        if settings.model is None:
            continue
        restorer = load_evaluated(settings, device)
        if restorer.config.factors:
            experts[name] = Experts.of(restorer)
            found[f"{name}-gates"] = partial(gates, experts[name], shown)
        if isinstance(restorer.transport, LogNormal):
            restorer.transport.times(steps, "MC")  # raises its error before anything is drawn
            found[f"{name}-trajectory"] = partial(
                trajectory, restorer, shown[0], steps=steps, seed=settings.options["seed"]
            )
    if experts and any(case.masks for case in shown):
        found["maps"] = lambda: maps(experts, shown)
    return found
