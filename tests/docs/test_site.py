"""The site: built without a warning, every link and anchor there, nothing asked of another host."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browsing import visits

from .blocks import ROOT, blocks_of

pytest.importorskip("mkdocs", reason="needs the [docs] extra")
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "video": "src"}


class Page(HTMLParser):
    """ids: what a link can lead to. links: of <a>. loads: what the page cannot be shown without."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.loads = {""}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(LOADING.get(tag, "")) and values.get("rel") != "canonical":
            self.loads.append(values[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "WARNING" not in said and "Documentation built" in said, said
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_docs_is_there(site, pages):
    for source in (ROOT / "docs").rglob("*.md"):
        assert site / source.relative_to(ROOT / "docs").with_suffix(".html") in pages


def test_links_lead_somewhere(site, pages):
    wrong, followed = [], 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of a server
            continue
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            followed += 1
            anchor = "" if parts.fragment.startswith("__") else unquote(parts.fragment)  # __: made by Material's script
            if not target.exists() or (target in pages and anchor not in pages[target].ids):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert wrong == [] and followed > 500


def test_nothing_is_loaded_from_another_host(site, pages):
    assert [link for page in pages.values() for link in page.loads if urlsplit(link).netloc] == []
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", text) == [], path


def formulas_of(source: Path) -> int:
    """How many formulas a page's Markdown has: blocks of math, and what stands between dollars outside of blocks."""
    blocks = blocks_of(source)
    prose = source.read_text(encoding="utf-8")
    for block in blocks:
        prose = prose.replace(block.text, "")
    inline = re.findall(r"\$\S(?:[^$\n]*\S)?\$", re.sub(r"`[^`\n]*`", "", prose))
    return len(inline) + sum(block.language == "math" for block in blocks)


def test_formulas_are_mathml_and_nothing_of_them_is_left_in_latex(site):
    counted = {}
    for source in sorted((ROOT / "docs").rglob("*.md")):
        page = (site / source.relative_to(ROOT / "docs").with_suffix(".html")).read_text(encoding="utf-8")
        found = re.findall(r"<math .+?</math>", page, re.DOTALL)
        assert len(found) == formulas_of(source), source
        assert [formula for formula in found if re.search(r"[\\$]|<mi>&</mi>|<merror", formula)] == [], source
        assert 'class="arithmatex">\\' not in page, source
        counted[source.stem] = len(found)
    assert counted["mathematics"] > 100 and min(counted["diffusers"], counted["add_an_op"], counted["performance"]) > 3


def test_commands_are_all_there_with_all_their_options(site):
    import typer

    from f2d.cli.commands import app

    page = (site / "reference/cli.html").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    assert len(group.commands) >= 12
    for name, command in group.commands.items():
        section = page.split(f'id="f2d-{name}"')[1].split("</table>")[0]
        shown = {
            word.lower() for cell in re.findall(r"<code>(.+?)</code>", section) for word in re.split(r"[ ,]+", cell)
        }
        for parameter in command.params:
            argument = parameter.param_type_name == "argument"
            words = [parameter.metavar or parameter.name] if argument else parameter.opts
            for word in words:
                assert word == "--help" or word.lower() in shown, (name, word)


@pytest.mark.parametrize(
    "name", ["expert_assembly", "transport_step", "accelerate", "use_backend", "GroupNormSiLU", "IRSDE"]
)
def test_the_reference_has_the_public_names(site, name):
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    assert "&gt;&gt;&gt;" in text and "<blockquote>\n<blockquote>" not in text  # doctests are shown as code
    assert re.search(rf'id="f2d_kernels\.[\w.]*{name}"', text)


@pytest.fixture(scope="module")
def server(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_in_a_browser(browser, site, server, pages):
    """No request leaves the host, no complaint of the page; nothing is wider than a telephone; the search finds."""
    with visits(browser, server + "index.html", own=(server, "data:", "blob:")) as visit:
        tab = visit(400, 800)
        for path in pages:
            tab.goto(server + path.relative_to(site).as_posix())
            width = tab.evaluate("document.documentElement.scrollWidth")
            assert width <= 400, f"{path.relative_to(site)} is {width} wide"
        tab.set_viewport_size({"width": 1280, "height": 800})
        tab.goto(server + "index.html")
        tab.locator(".md-search__input").fill("lognormal_transition")
        tab.locator(".md-search-result__link").first.wait_for()


def test_a_browser_draws_formulas(browser, server):
    """A fraction's numerator stands above its denominator, and both are where they are seen."""
    with visits(browser, server + "mathematics.html", own=(server, "data:", "blob:")) as visit:
        fraction = visit().locator("div.arithmatex math mfrac").first
        numerator, denominator = (fraction.locator(f":scope > :nth-child({n})").bounding_box() for n in (1, 2))
        assert numerator["height"] > 5 and numerator["y"] + numerator["height"] <= denominator["y"]
