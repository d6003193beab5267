"""Records and folders of evaluations that never were."""

from dataclasses import replace
from pathlib import Path

from f2d.evaluation.folder import EvaluationFolder, Settings
from f2d.evaluation.record import Record
from f2d.metrics.measure import About

PSNR = About("psnr rgb 8bit", "PSNR RGB", "higher", "dB", 2)
SSIM = About("ssim rgb 8bit 7x7", "SSIM RGB", "higher", "", 4)
NIQE = About("niqe", "NIQE", "lower", "", 2)
SETTINGS = Settings(
    name="one",
    model="f2d-lite",
    outputs=None,
    digest="ab" * 32,
    options={"steps": 1, "sampler": "MC", "seed": 0, "limit": None},
    data="cdd-11=data/CDD-11_test",
    conventions={"onerestore": {"text": "RGB after 8 bits; SSIM 7x7 uniform", "keys": [PSNR.key, SSIM.key]}},
    measures=(PSNR, SSIM, NIQE),
)


def record(name: str, psnr: float, **others) -> Record:
    """`name`: category/scene. Its input has 10 dB less."""
    category, _, scene = name.partition("/")
    values = {PSNR.key: psnr, SSIM.key: psnr / 40, NIQE.key: 4.0} | others.pop("values", {})
    degraded = {PSNR.key: psnr - 10, SSIM.key: psnr / 50, NIQE.key: 8.0} | others.pop("input", {})
    defaults = {"width": 300, "height": 200, "seconds": 0.5, "peak_memory": 1000, "scene": scene}
    return Record(name, category, values=values, input=degraded, **(defaults | others))


def folder_of(path: Path, records: list[Record], **changes) -> EvaluationFolder:
    """An evaluation on disk; `changes` of its settings."""
    folder = EvaluationFolder(path, replace(SETTINGS, **changes))
    folder.create()
    for one in records:
        folder.write(one)
    return folder
