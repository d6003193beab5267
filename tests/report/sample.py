"""A small evaluation to make pages of: photographs, degraded by recipe and restored by the shipped model."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

import f2d
from f2d.demo import sample_photograph
from f2d.evaluation.case import Case
from f2d.evaluation.datasets import DataSet
from f2d.evaluation.folder import EvaluationFolder, Settings
from f2d.evaluation.method import digest
from f2d.evaluation.record import Record
from f2d.images import to_picture, to_tensor
from f2d.metrics import psnr
from f2d.metrics.localisation import THRESHOLDS, located
from f2d.metrics.measure import About

PSNR = About("psnr rgb 8bit", "PSNR", "higher", "dB", 2)
ERROR = About("mean error", "Error", "lower", "", 4)
WORDS = "RGB after rounding to 8 bits, mean over the pictures."
CATEGORIES = ("low_haze_rain", "haze_snow", "rain")


def data_set(title: str, cases: list[Case], problems: tuple[str, ...] = (), tiers=()) -> DataSet:
    """What `open_data` is to give."""
    return DataSet("synthetic=photographs", title, tuple(cases), problems, tiers, ("photographs",), "RGB")


class Sample(NamedTuple):
    """data: what `open_data` is to give. folders: the evaluations."""

    data: DataSet
    folders: list[Path]


def settings(name: str, **changes) -> Settings:
    """Of an evaluation of f2d-lite by PSNR and the mean error."""
    conventions = {
        "RGB": {"text": WORDS, "keys": [PSNR.key]},
        "Error": {"text": "Mean of |a − b|.", "keys": [ERROR.key]},
    }
    values = {
        "name": name,
        "model": "f2d-lite",
        "outputs": None,
        "digest": digest("f2d-lite"),
        "options": {"steps": 1, "sampler": "MC", "seed": 0, "precision": "float32"},
        "data": "synthetic=photographs",
        "conventions": conventions,
        "measures": (PSNR, ERROR),
        "absent": {"LPIPS": "its network is not installed"},
    }
    return Settings(**(values | changes))


def make_cases(
    folder: Path, size: tuple[int, int], count: int, photographs=("chelsea", "coffee", "astronaut")
) -> list[Case]:
    """Crops of photographs as clean files, each degraded anew as it is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for i in range(count):
        category = CATEGORIES[i % len(CATEGORIES)]
        picture = Image.open(sample_photograph(photographs[i % len(photographs)])).convert("RGB")
        left, top = (37 * i) % (picture.width - size[0] + 1), (23 * i) % (picture.height - size[1] + 1)
        path = folder / f"{i}.png"
        picture.crop((left, top, left + size[0], top + size[1])).save(path)
        cases.append(Case(f"{category}/{i:03}", category, None, path, i, tuple(category.split("_"))))
    return cases


def evaluate(path: Path, name: str, cases: list[Case], restore, **changes) -> Path:
    """Write an evaluation of `cases`; restore: degraded picture -> `f2d.engine.restorer.Restored` or picture."""
    folder = EvaluationFolder(path, settings(name, **changes))
    folder.create()
    for case in cases:
        pixels = case.load()
        restored = restore(to_picture(pixels.degraded))
        picture = getattr(restored, "image", restored)
        target = folder.restored(case.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        numbers = [_values(to_tensor(picture), pixels.clean), _values(pixels.degraded, pixels.clean)]
        factors = getattr(restored, "factors", ())
        seen = [dict(zip(factors, getattr(restored, of).tolist())) if factors else {} for of in ("gates", "presence")]
        selectivity = {"present_absent": (0.3, 0.02)} if factors else {}
        maps = {
            factor: located(restored.maps[k], pixels.maps[k], THRESHOLDS.get(factor))
            for k, factor in enumerate(factors)
            if factor in case.factors
        }
        measured = (*numbers, *seen, selectivity, maps, 0.125, 2**28)
        record = Record(case.name, case.category, *picture.size, *measured, data=case.files(), scene=case.scene())
        folder.write(record)
    return path


def make_sample(folder: Path, size: tuple[int, int] = (160, 112), count: int = 4) -> Sample:
    """Two evaluations: the model, and a median filter as outputs of another method."""
    from PIL import ImageFilter

    cases = make_cases(folder / "clean", size, count)
    model = f2d.load("f2d-lite", device="cpu")
    first = evaluate(folder / "lite", "F²D-Net lite", cases, lambda picture: model(picture, seed=0))
    median = ImageFilter.MedianFilter(3)
    other = {"model": None, "outputs": "outputs/median", "digest": None, "options": {}}
    second = evaluate(folder / "median", "Median 3×3", cases, lambda picture: picture.filter(median), **other)
    tiers = (("one factor", ("rain",)), ("several", ("low_haze_rain", "haze_snow")))
    problems = ("clean/none.png: cannot be read",)
    data = data_set("Photographs, degraded by recipe", cases, problems, tiers)
    return Sample(data, [first, second])


def _values(image, clean) -> dict[str, float]:
    return {PSNR.key: float(psnr(image[None], clean[None])), ERROR.key: float((image - clean).abs().mean())}
