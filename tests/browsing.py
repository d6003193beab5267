"""Chromium in tests: pages opened, what they said and asked for, and what axe-core finds in them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


@contextmanager
def chromium() -> Iterator:
    """A headless browser of this machine; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is on PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visits(browser, url: str, own: tuple[str, ...], known: tuple[str, ...] = (), patience: float = 30_000) -> Iterator:
    """open(width, height, **context) -> tab at `url`, in a context of its own. At the end: nothing but `known` was said
    on any console, and nothing asked for whose address does not begin with one of `own`. patience: milliseconds."""
    contexts, heard, asked = [], [], []

    def open_(width=1200, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(patience)
        tab.on("console", lambda message: heard.append((message.type, message.text)))
        tab.on("pageerror", lambda error: heard.append(("error", str(error))))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(url)
        return tab

    try:
        yield open_
    finally:
        for context in contexts:
            context.close()
    heard = [said for said in heard if said[1] not in known]
    assert not heard, heard
    foreign = [url for url in asked if not url.startswith(own)]
    assert not foreign, foreign


def violations(tab, rules: tuple[str, ...] = RULES) -> list[dict]:
    """What axe-core finds against `rules`: id, impact, nodes and more of each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(tab, options={"runOnly": {"type": "tag", "values": list(rules)}})
    assert len(found.response["passes"]) > 20  # it did look
    return found.response["violations"]
