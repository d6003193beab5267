"""Write the whole page about evaluations as one HTML file that works offline."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from f2d.engine.restorer import Restorer
from f2d.evaluation.method import load_evaluated
from f2d.evaluation.tables import AVERAGES
from f2d.metrics.measure import About
from f2d.replacing import replacing
from f2d.report import experts, results
from f2d.report.cards import Shown, card, prepare
from f2d.report.details import look
from f2d.report.gather import Content, gather
from f2d.report.maps import scales_of
from f2d.report.markup import Markup, element, together
from f2d.report.numbers import heading
from f2d.report.pictures import colours

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
    if not content.cases:
        notes.append("No pictures are shown: none has a restoration in every evaluation.")
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
            models.append(load_evaluated(method.settings, device))
        except (OSError, ValueError) as error:
            models.append(None)
            notes.append(f"{method.name}: shown without expert maps, gates over time and spread; {error}.")
    return models, notes


def _page(content: Content, shown: Sequence[Shown], notes: Sequence[str], budget: float) -> str:
    errors = [error for one in shown for error in one.errors if error is not None]
    scales = scales_of(errors, [details for one in shown for details in one.details if details is not None])
    cards = [card(one, content.methods, content.measures, scales, budget) for one in shown]
    style, script = _style(), _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = " vs ".join(method.name for method in content.methods)
    records = sum(len(method.records) for method in content.methods)
    failed = sum(len(method.failed) for method in content.methods)
    facts = (
        names,
        f"{len(content.data.cases)} pictures",
        f"{records} restorations measured",
        f"{failed} failed" if failed else "none failed",
    )
    values = {
        "title": together(f"{content.data.title}: {names}"),
        "heading": together(content.data.title),
        "facts": together(*(element("li", fact) for fact in facts)),
        "script_digest": digest,
        "style": style,
        "script": script,
        "averages": together(AVERAGES),
        "methods": results.methods_table(content),
        "failures": results.failures(content),
        "notes": together(*(element("p", note, class_="note") for note in notes)),
        "results": results.results(content),
        "selectivity": experts.selectivity(content),
        "localisation": experts.localisation(content),
        "charts": results.charts(content),
        "published": _section("published", "Published numbers", results.published(content)),
        "shown": str(len(shown)),
        "cases": str(len(content.data.cases)),
        "names": together(json.dumps([method.name for method in content.methods])),
        "toolbar": _toolbar(content, shown) if shown else Markup(),
        "cards": together(*cards),
        "links": together(
            *([element("a", "Published", href="#published")] if content.published else []),
            *([element("a", "Pictures", href="#pictures")] if shown else []),
        ),
    }
    return Template(_part("page.html")).substitute(values)


def _section(name: str, title: str, inside: Markup) -> Markup:
    return element("section", element("h2", title), inside, id=name) if inside else Markup()


def _toolbar(content: Content, shown: Sequence[Shown]) -> Markup:
    categories = list(dict.fromkeys(one.case.category for one in shown))
    sources = list(dict.fromkeys(source for one in shown for source in one.sources))
    every = [element("option", f"all categories ({len(shown)})", value="")]
    counts = {name: sum(one.case.category == name for one in shown) for name in categories}
    show = [element("option", f"{name} ({counts[name]})", value=name) for name in categories]
    order = [element("option", "as in the data set", value=""), *_orders(content.measures)]
    left = [element("option", name, value=name, selected=i == 0) for i, name in enumerate(sources)]
    right = [element("option", name, value=name, selected=i == 1) for i, name in enumerate(sources)]
    zoom = [element("option", f"{z}×", value=z) for z in (1, 2, 4)]
    sort = (
        _select("show", "Show", [*every, *show]),
        _select("order", "Order", order),
        element("p", class_="status", role="status"),
    )
    view = (
        _select("left", "Left", left),
        _select("right", "Right", right),
        _select("zoom", "Zoom", zoom),
        element("button", "Previous", type="button", data_go=-1, aria_keyshortcuts="P"),
        element("button", "Next", type="button", data_go=1, aria_keyshortcuts="N"),
    )
    words = (
        "Drag a picture to move its divider, or focus it and use the arrow keys, Home and End. "
        "N and P then go to the next and the previous picture."
    )
    return together(
        element("p", words, class_="words scripted"),
        element("div", *sort, class_="controls scripted", role="group", aria_label="Choice of pictures"),
        element("div", *view, class_="controls sticky scripted", role="group", aria_label="Choice of the two sides"),
    )


def _orders(measures: Sequence[About]) -> Iterator[Markup]:
    """Yield two options for each measure; an option's value is the place of the measure and the sign of the order."""
    for i, about in enumerate(measures):
        if not about.better:
            continue
        rising = 1 if about.better == "higher" else -1
        for word, sign in (("worst", rising), ("best", -rising)):
            yield element("option", f"{word} first by {heading(about)}", value=f"{i}:{sign}")


def _select(name: str, label: str, options: Sequence[Markup]) -> Markup:
    select = element("select", *options, id=name, autocomplete="off")  # Firefox would keep the choice over a reload
    return element("label", element("span", label), select, for_=name)


def _style() -> str:
    stops = ",".join("#{:02x}{:02x}{:02x}".format(*colours()[round(255 * i / 16)]) for i in range(17))
    return f":root{{--inferno:linear-gradient(90deg,{stops})}}\n{_part('page.css')}"


def _part(name: str) -> str:
    return files("f2d.report").joinpath(name).read_text(encoding="utf-8")
