"""A whole evaluation: the request, the cases still to evaluate, and the results."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from f2d.checkpoints import CONFIG, names_weights, pinned
from f2d.engine.execution import Execution, choose_execution
from f2d.engine.restorer import Restorer
from f2d.evaluation.case import Case
from f2d.evaluation.datasets import DataSet, open_data
from f2d.evaluation.folder import RECORDS, RESTORED, SETTINGS, EvaluationFolder, Settings
from f2d.evaluation.method import Method, ModelMethod, OutputsMethod, digest
from f2d.evaluation.record import Record, in_unicode
from f2d.evaluation.run import Run
from f2d.evaluation.summary import Summary, of_all, summarize
from f2d.evaluation.tables import FILES, write_results
from f2d.metrics.conventions import CONVENTIONS
from f2d.metrics.measures import NAMES, OF_METHODS, find, find_sets
from f2d.metrics.variation import CHANGE, SPREAD
from f2d.nets.models import load_config, load_network
from f2d.transport import sampling

RESERVED = ("input", "ground truth")  # columns of figures and pages, in lower case


@dataclass(frozen=True)
class Request:
    """The arguments of an evaluation.

    method: a preset, a checkpoint folder, owner/name on the Hub, or a folder of images restored by another method.
    data: an argument of `open_data`. conventions: names in `f2d.metrics.conventions`; by default the dataset's own.
    measures: further names in `f2d.metrics.measures`. name: the method's name in tables. limit: largest number of cases
    per category. The other fields are those of `Restorer`.
    """

    method: str
    data: str
    conventions: Sequence[str] = ()
    measures: Sequence[str] = ("mae", "niqe")
    name: str | None = None
    steps: int | None = None
    sampler: str | None = None
    seed: int = 0
    limit: int | None = None
    device: str = "auto"
    precision: str = "auto"
    stlpips_weights: Path | None = None
    keep_images: bool = True


class Evaluation:
    """``evaluation = Evaluation(request, folder); evaluation.folder.create(); cases = evaluation.data.cases;
    for record in evaluation.run(evaluation.remaining(cases)): ...; evaluation.finish(evaluation.records())``.

    Everything that can be checked without loading a model is checked on creation: ValueError or OSError for missing
    data, unknown measures, invalid steps or samplers, and a folder with another evaluation unless `overwrite` is set.
    """

    def __init__(self, request: Request, path: Path, *, overwrite: bool = False):
        name, self._is_model = in_unicode(request.name or _called(request.method)), names_weights(request.method)
        if name.lower() in RESERVED:
            raise ValueError(f"{name!r} has a special meaning in tables, so choose a different --name")
        if self._is_model:  # a branch on the Hub moves, but all parts of an evaluation must use the same weights
            request = replace(request, method=pinned(request.method))
        self.request = request
        self.data: DataSet = open_data(request.data, request.limit)
        self.execution: Execution = choose_execution(request.device, request.precision)
        _refuse_inside(path, Path(self.data.spec.partition("=")[2]))
        listed = {file.parent for case in self.data.cases for file in (case.degraded, case.clean) if file is not None}
        _refuse_written(path, listed)
        self._outputs = None
        if not self._is_model:
            _refuse_inside(path, Path(request.method))
            every = self.data if request.limit is None else open_data(request.data)
            self._outputs = OutputsMethod(Path(request.method).resolve(), every.cases)
        options = self._options()
        conventions = list(request.conventions) or [self.data.convention]
        if conventions == ["all"]:
            conventions = list(CONVENTIONS)
        measures = list(NAMES if list(request.measures) == ["all"] else request.measures)
        device = self.execution.device
        self._measures, absent = find(conventions, measures, stlpips_weights=request.stlpips_weights, device=device)
        self._set_measures, absent_sets = find_sets(measures, device=device)
        self._of_method = [about for name, about in OF_METHODS.items() if name in measures]
        if SPREAD in self._of_method and not self._is_model:
            self._of_method.remove(SPREAD)
            absent["spread"] = "the images are outputs of another method, so no second sample can be drawn"
        if self._set_measures and not request.keep_images:
            raise ValueError("fid is measured on the stored restored images, so do not use --no-images")
        settings = Settings(
            name=name,
            model=_where(request.method) if self._is_model else None,
            outputs=None if self._is_model else str(Path(request.method).resolve()),
            digest=digest(request.method) if self._is_model else None,
            options={**options, "limit": request.limit},
            data=self.data.spec,
            conventions={
                name: {"text": CONVENTIONS[name].text, "keys": CONVENTIONS[name].keys} for name in conventions
            },
            measures=(
                *(measure.about for measure in self._measures),
                *self._of_method,
                *(measure.about for measure in self._set_measures),
            ),
            absent=absent | absent_sets,
        )
        self.folder = EvaluationFolder(path, settings)
        self._overwrite = overwrite
        if not overwrite:
            self._refuse_another()

    def remaining(self, cases: Sequence[Case]) -> list[Case]:
        """Return the cases that are still to be evaluated, and remove temporary files of killed processes.

        These are cases without an undamaged record or restored image, cases whose files have changed, and failed cases.
        With `overwrite`, these are all cases, and those of an earlier evaluation that are not among the dataset's are
        removed. If any are left to evaluate, results of an earlier run are removed.
        """
        self.folder.remove_leftovers(case.name for case in cases)
        if self._overwrite:  # restored/ may be evaluated in its turn, where images of two methods would mix
            self.folder.remove_others(case.name for case in self.data.cases)
            for case in cases:
                self.folder.remove(case.name)
        left = [case for case in cases if not self._is_done(case)]
        if left:  # interrupted, the folder would have records beside tables and a FID of other images
            for name in FILES:
                (self.folder.path / name).unlink(missing_ok=True)
        return left

    def run(self, cases: Sequence[Case]) -> Iterator[Record]:
        """Evaluate cases and yield each record as soon as it exists; the model is loaded first."""
        # a GPU would wait while images are read and measured; on a CPU these threads would compete with the model
        workers = 1 if self.execution.device.type == "cpu" else 4
        run = Run(
            *(self.folder, self._method(), self._measures, self._files),
            keep_images=self.request.keep_images,
            change=CHANGE in self._of_method,
            workers=workers,
        )
        yield from run(cases)

    def records(self) -> list[Record | None]:
        """Return the record of every case, None where there is none yet."""
        return [self._record(case) for case in self.data.cases]

    def finish(self, records: Sequence[Record | None]) -> Summary:
        """Summarise the `records` of all cases, and write the results."""
        found = of_all(self.data.cases, records)
        summary = summarize(found, self.data.tiers)
        write_results(self.folder, self.data, summary, found, self._over_sets(found), str(self.execution))
        return summary

    def _over_sets(self, records: list[Record]) -> dict[str, float]:
        """Compute the measures of all restorations together, such as FID."""
        done = {record.name for record in records if record.error is None}
        pairs = [(self.folder.restored(c.name), c.clean) for c in self.data.cases if c.name in done and c.clean]
        if not pairs:
            return {}
        return {measure.about.key: measure(*map(list, zip(*pairs))) for measure in self._set_measures}

    def _files(self, case: Case) -> str:
        return case.files(*(self._outputs.files(case) if self._outputs else ()))

    def _record(self, case: Case) -> Record | None:
        """Return the record of a case if it is undamaged, and was made from the files as they are now."""
        try:
            record = self.folder.record(case.name)
        except ValueError:
            return None
        return record if record is not None and record.files == self._files(case) else None

    def _is_done(self, case: Case) -> bool:
        record = self._record(case)
        there = not self.request.keep_images or self.folder.restored(case.name).is_file()
        return record is not None and record.error is None and there

    def _method(self) -> Method:
        if self._outputs is not None:
            return self._outputs
        settings = self.folder.settings
        assert settings.model is not None  # where there are no outputs
        options = {name: settings.options[name] for name in ("steps", "sampler", "seed")}
        restorer = Restorer(load_network(settings.model), self.execution)
        return ModelMethod(restorer, options, twice=SPREAD in self._of_method)

    def _options(self) -> dict[str, object]:
        """Return the options of the restorations with their defaults filled in; none for images of another method."""
        request = self.request
        if not self._is_model:
            return {}
        steps, sampler = sampling(load_config(request.method).transport, request.steps, request.sampler)
        return {"steps": steps, "sampler": sampler, "seed": request.seed, "precision": self.execution.precision}

    def _refuse_another(self) -> None:
        if not (self.folder.path / SETTINGS).exists():
            others = [name for name in (*FILES, RECORDS, RESTORED) if (self.folder.path / name).exists()]
            if others:
                raise ValueError(
                    f"{self.folder.path} contains {others[0]}, but no evaluation: use a different folder or --overwrite"
                )
            return
        there, ours = map(asdict, (EvaluationFolder.open(self.folder.path).settings, self.folder.settings))
        differing = [name for name in there if name != "absent" and there[name] != ours[name]]
        if differing:
            raise ValueError(
                f"{self.folder.path} contains a different evaluation (different {', '.join(differing)}): use another "
                "folder or --overwrite"
            )


def _called(method: str) -> str:
    """Return the name of a folder, or of the run that contains it (weights, best)."""
    path = Path(method)
    return path.resolve().parent.name if path.name in ("weights", "best") else path.resolve().name


def _where(model: str) -> str:
    """Return a preset's name, or the absolute path of a folder."""
    return str(Path(model).resolve()) if (Path(model) / CONFIG).is_file() else model


def _refuse_inside(path: Path, folder: Path) -> None:
    """Raise ValueError for an output folder inside the data, where results would be read as data next time, and for
    data where the evaluation writes its files, which would replace them.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} must lie outside {folder}, which is read")
    _refuse_written(path, [folder])


def _refuse_written(path: Path, read: Iterable[Path]) -> None:
    for written in ((path / name).resolve() for name in (RECORDS, RESTORED)):
        for folder in read:
            if folder.resolve().is_relative_to(written):
                raise ValueError(f"{folder} must lie outside {written}, which is written")
