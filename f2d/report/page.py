"""Write the whole page about evaluations as one HTML file that works offline."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import StrictUndefined, Template
from markupsafe import Markup

from f2d.engine.restorer import Restorer
from f2d.evaluation.map_rows import MAP_COLUMNS, MAPS, map_cells, map_notes
from f2d.evaluation.method import load_evaluated
from f2d.evaluation.tables import AVERAGES
from f2d.replacing import replacing
from f2d.report.cards import Shown, card, prepare
from f2d.report.charts import bars_of, gates_over_time
from f2d.report.details import GATE_STEPS, check_steps, look
from f2d.report.gather import INPUT, Content, gather
from f2d.report.maps import scales_of
from f2d.report.numbers import best, heading, printed
from f2d.report.pictures import colours

TOLD = 200  # largest number of failures and problems that are listed
FUNCTIONS = (heading, printed, best, bars_of, gates_over_time, map_cells, map_notes)  # that the template calls
BUDGET = 28_000_000  # characters of all images together; the rest of a page with 50 images takes under 1 MB


def write_report(
    folders: Sequence[Path],
    target: Path,
    *,
    images: int = 16,
    details: bool = True,
    device: str = "auto",
    progress: Callable[[str], None] = lambda case: None,
) -> list[str]:
    """Write the page about the evaluations in `folders` to `target`; equal inputs give byte-identical pages.

    images: largest number of images to show. details: whether to run the models on `device` for maps, gates and spread.
    progress: is called with the name of each image. Returns one line for each omission, with its reason.

    Raises ValueError for evaluations that do not belong on one page (see `gather`), if matplotlib is missing, or if a
    restored image does not have the size of its input. Raises `f2d.images.ImageError` if an image cannot be read.
    """
    colours()  # fail before the work if matplotlib is missing
    content = gather(folders, images)
    models, notes = _models(content, details, device)
    if content.changed:
        notes.append(
            f"The files of {len(content.changed)} of {len(content.data.cases)} pictures, such as {content.changed[0]}, "
            "have changed since they were evaluated: their numbers are of the earlier files, and they are not shown. "
            "Run f2d eval again."
        )
    if not content.cases:
        notes.append("No pictures are shown: none has an up-to-date restoration in every evaluation.")
    budget = BUDGET / max(1, len(content.cases))
    shown = []
    for case in content.cases:
        progress(case.name)
        pixels = case.load()
        asked = [None if model is None else look(model, pixels.degraded) for model in models]
        shown.append(prepare(case, pixels, content.methods, asked, budget))
    page = _page(content, shown, notes, budget)
    with replacing(target, alone=True) as part:
        # file names may hold bytes that are not Unicode; they become character references
        part.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
    return notes


def _models(content: Content, details: bool, device: str) -> tuple[list[Restorer | None], list[str]]:
    """Load the models; None, and a line with the reason, for each that cannot be loaded."""
    if not details or not content.cases:
        return [None] * len(content.methods), []
    models, notes = list[Restorer | None](), list[str]()
    for method in content.methods:
        try:
            model = load_evaluated(method.settings, device)
            check_steps(model)
            models.append(model)
        except (OSError, ValueError) as error:
            models.append(None)
            notes.append(f"{method.name}: shown without expert maps, gates over time and spread; {error}.")
    return models, notes


def _page(content: Content, shown: Sequence[Shown], notes: Sequence[str], budget: float) -> str:
    errors = [error for one in shown for error in one.errors if error is not None]
    scales = scales_of(errors, [details for one in shown for details in one.details if details is not None])
    script = _part("page.js")
    failed = sum(len(method.failed) for method in content.methods)
    facts = (
        " vs ".join(method.name for method in content.methods),
        f"{len(content.data.cases)} pictures",
        f"{sum(len(method.records) for method in content.methods)} restorations measured",
        f"{failed} failed" if failed else "none failed",
    )
    # lines are joined without the white space between them, which browsers would show between some elements
    lines = map(str.strip, _part("page.html").splitlines())
    template = Template("".join(lines), autoescape=True, undefined=StrictUndefined)
    return template.render(
        content=content,
        facts=facts,
        notes=notes,
        cards=[card(one, content.methods, content.measures, scales, budget) for one in shown],
        sources=list(dict.fromkeys(source for one in shown for source in one.sources)),
        methods=json.dumps([method.name for method in content.methods]),
        style=Markup(_style()),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        averages=AVERAGES,
        told=TOLD,
        gate_steps=GATE_STEPS,
        input=INPUT,
        maps=MAPS,
        map_columns=MAP_COLUMNS,
        **{function.__name__: function for function in FUNCTIONS},
    )


def _style() -> str:
    stops = ",".join("#{:02x}{:02x}{:02x}".format(*colours()[round(255 * i / 16)]) for i in range(17))
    return f":root{{--inferno:linear-gradient(90deg,{stops})}}\n{_part('page.css')}"


def _part(name: str) -> str:
    return files("f2d.report").joinpath(name).read_text(encoding="utf-8")
