"""Run cases through a method one after the other, and store each record and restoration."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from threading import Lock

import torch
from torch import Tensor

from f2d.degradation import FACTORS
from f2d.engine.execution import telling_memory
from f2d.evaluation.case import Case, Pixels
from f2d.evaluation.folder import EvaluationFolder
from f2d.evaluation.memory import peak_memory
from f2d.evaluation.method import Answer, Method
from f2d.evaluation.record import Record
from f2d.images import save_image, to_picture
from f2d.metrics.localisation import THRESHOLDS, Located, located
from f2d.metrics.measure import Measure
from f2d.metrics.selectivity import effective_gates, pairs_of
from f2d.metrics.variation import CHANGE, SPREAD, change, spread


class Run:
    """Evaluates cases into a folder.

    files returns the hash of a case's files. keep_images: whether restorations are written. change: whether their
    distance from the degraded image is measured. workers: number of cases that are read, measured and written at the
    same time; the method restores one at a time.
    """

    def __init__(
        self,
        folder: EvaluationFolder,
        method: Method,
        measures: Sequence[Measure],
        files: Callable[[Case], str],
        *,
        keep_images: bool = True,
        change: bool = False,
        workers: int = 1,
    ):
        self.folder, self.method, self.measures, self.files = folder, method, measures, files
        self.keep_images, self.change, self.workers = keep_images, change, workers
        self._turn = Lock()

    def __call__(self, cases: Sequence[Case]) -> Iterator[Record]:
        """Evaluate `cases` and yield each record once it is written; the record of a failure contains the reason."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for done in as_completed([pool.submit(self._one, case) for case in cases]):
                    yield done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _one(self, case: Case) -> Record:
        # before reading, so that a file that changes meanwhile is evaluated again
        files, data = self.files(case), case.files()
        try:
            with telling_memory("the image with its measures"):
                record = replace(self._evaluated(case), scene=case.scene())
        # errors of the data, such as a file that is not an image, or images of different sizes
        except (ValueError, OSError) as error:
            record = Record(case.name, case.category, error=" ".join(str(error).split()))
        if record.error is not None or not self.keep_images:
            self.folder.restored(case.name).unlink(missing_ok=True)  # that of earlier files
        record = replace(record, files=files, data=data)
        self.folder.write(record)
        return record

    def _evaluated(self, case: Case) -> Record:
        pixels = case.load()
        with self._turn:
            answer = self.method.restore(case, pixels.degraded)
        if not bool(answer.image.isfinite().all()):
            raise ValueError("the restored image has values that are infinite or not a number")
        if self.keep_images:
            path = self.folder.restored(case.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(to_picture(answer.image), path)
        usable = [measure for measure in self.measures if pixels.clean is not None or not measure.needs_ground_truth]
        values = {measure.about.key: measure(answer.image, pixels.clean) for measure in usable}
        degraded = {measure.about.key: measure(pixels.degraded, pixels.clean) for measure in usable}
        if self.change:
            values[CHANGE.key], degraded[CHANGE.key] = change(answer.image, pixels.degraded), 0.0
        if answer.another is not None:
            values[SPREAD.key], degraded[SPREAD.key] = spread(answer.image, answer.another), 0.0
        return Record(
            case.name,
            case.category,
            width=pixels.degraded.shape[2],
            height=pixels.degraded.shape[1],
            values=values,
            input=degraded,
            gates=_by_factor(answer, answer.gates),
            presence=_by_factor(answer, answer.presence),
            effective=_effective(answer),
            selectivity=_selectivity(case, pixels, answer),
            localisation=_localisation(case, pixels, answer),
            seconds=answer.seconds,
            peak_memory=peak_memory(),
        )


def _by_factor(answer: Answer, values: Tensor | None) -> dict[str, float]:
    return dict(zip(answer.factors, [] if values is None else values.tolist()))


def _effective(answer: Answer) -> dict[str, float]:
    if not answer.factors or answer.gates is None or answer.maps is None:
        return {}
    return dict(zip(answer.factors, effective_gates(answer.gates, answer.maps).tolist()))


def _selectivity(case: Case, pixels: Pixels, answer: Answer) -> dict[str, tuple[float, float]]:
    """Compute the selectivity; empty if the method has no factors, or those of the case are unknown."""
    if not (answer.factors and case.factors) or answer.gates is None or answer.maps is None:
        return {}
    labels = torch.tensor([float(factor in case.factors) for factor in answer.factors])
    true_maps = None
    if pixels.maps is not None:
        absent = torch.zeros_like(pixels.maps[0])
        true_maps = torch.stack(
            [pixels.maps[FACTORS.index(name)] if name in FACTORS else absent for name in answer.factors]
        )
    return pairs_of(answer.gates, answer.maps, labels, true_maps)


def _localisation(case: Case, pixels: Pixels, answer: Answer) -> dict[str, Located]:
    """Compute the localisation of each present factor with a map; empty if the ground-truth masks are unknown."""
    if not answer.spatial or answer.maps is None or pixels.maps is None:
        return {}
    return {
        factor: located(map_, pixels.maps[FACTORS.index(factor)], THRESHOLDS.get(factor))
        for factor, map_ in zip(answer.factors, answer.maps)
        if factor in case.factors
    }
