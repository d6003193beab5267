"""The page in Chromium: what people do on it, several at once, with good files and bad ones."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from f2d.images import read
from tests.app.conftest import Held, draw
from tests.browsing import violations, visits
from tests.cli.conftest import smooth_pixels

pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")
GRADIO_SAYS = ("Method not implemented.",)  # a warning of gradio's client (6.31) at every upload
SLOW = 60_000  # milliseconds: a machine that does something else too


@pytest.fixture(scope="module")
def held(restorer):
    return Held(restorer)


@pytest.fixture(scope="module")
def address(held):
    from f2d.app.limits import Limits
    from f2d.app.serve import serving

    with serving(held, "tiny", Limits(megapixels=0.5, upload=2**20, together=1), licence="Research only.") as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """visit(width, height, **context): the page in a context of its own, checked at the end: nothing on the console,
    no request to another host."""
    with visits(browser, address, (address, "data:", "blob:"), GRADIO_SAYS) as open_:

        def opened(*size, **options):
            tab = open_(*size, **options)
            tab.set_default_timeout(SLOW)
            tab.wait_for_selector("#f2d-restore")
            return tab

        yield opened


def upload(tab, path) -> None:
    """Choose a file, in place of one that is there, and wait until the page has looked at it."""
    if tab.locator("#f2d-upload img").count():
        tab.get_by_label("Clear").click()
    tab.set_input_files("#f2d-upload input[type=file]", path)
    tab.wait_for_selector("#f2d-upload img")


def restore(tab) -> Image.Image:
    """Press Restore, wait, download."""
    before = tab.locator("#f2d-line").inner_text()
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.wait_for_function("before => document.querySelector('#f2d-line').innerText != before", arg=before)
    return downloaded(tab)


def downloaded(tab) -> Image.Image:
    with tab.expect_download() as waiting:
        tab.locator("#f2d-download").click()
    image = Image.open(waiting.value.path())
    image.load()
    return image


def until(tab, holds) -> None:
    for _ in range(SLOW // 100):
        if holds():
            return
        tab.wait_for_timeout(100)
    pytest.fail("it did not come to be")


def edge(tab) -> float:
    """Where the picture before ends, as a part of the width: read from the clip that is in force."""
    clip = tab.locator(".stage .before").evaluate("image => getComputedStyle(image).clipPath")
    left, hidden = re.fullmatch(r"inset\(0px(?: calc\(100% - ([\d.]+)%\)| ([\d.]+)(?:%|px))?.*\)", clip).groups()
    return float(left) / 100 if left else 1 - float(hidden or 0) / 100


def test_a_picture_is_restored_compared_and_saved(visit, restorer, tmp_path):
    path, tab = draw(tmp_path, "plain.png"), visit()
    upload(tab, path)
    expected = np.asarray(restorer(path).image)
    assert np.array_equal(np.asarray(restore(tab)), expected)
    assert "grey levels" in tab.locator("#f2d-line [role=status]").inner_text()

    stage = tab.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(48 / 32, rel=0.02)
    assert edge(tab) == 0.5
    at = lambda part: (box["x"] + part * box["width"], box["y"] + box["height"] / 3)  # noqa: E731
    tab.mouse.move(*at(0.5))
    tab.mouse.down()
    tab.mouse.move(*at(0.8), steps=3)
    assert edge(tab) == pytest.approx(0.8, abs=0.01)
    tab.mouse.up()
    tab.mouse.move(*at(0.2))
    assert edge(tab) == pytest.approx(0.8, abs=0.01)  # let go is let go
    for key, place in (("Home", 0), ("ArrowRight", 0.01), ("PageUp", 0.11), ("End", 1), ("ArrowLeft", 0.99)):
        tab.keyboard.press(key)
        assert edge(tab) == pytest.approx(place), key
    assert tab.locator(".stage input").get_attribute("aria-valuetext") == "99 % before"
    for name, pixels in (("before", smooth_pixels(32, 48)), ("after", expected)):  # what is shown is what it says
        image = stage.locator("img.before" if name == "before" else "img:not(.before)")
        shown = Image.open(io_of(tab, image.get_attribute("src"))).convert("RGB")
        assert np.array_equal(np.asarray(shown), pixels), name
    seen = restorer.explain(Image.open(path))
    figures = tab.locator("#f2d-factors figure")
    assert figures.locator("b").all_inner_texts() == ["low light", "haze", "rain", "snow"]
    assert figures.nth(1).locator("dd").nth(1).inner_text() == f"{seen.gates[1]:.2f}"
    assert figures.locator("img").evaluate_all("all => all.every(i => i.naturalWidth > 0 && i.alt)")


def io_of(tab, url: str):
    return io.BytesIO(tab.request.get(url if "://" in url else tab.url + url).body())


def test_strengths_steps_and_seed_reach_the_model(visit, restorer, tmp_path):
    path, tab = draw(tmp_path, "plain.png"), visit()
    upload(tab, path)
    tab.get_by_role("button", name="Strength of each factor").click()
    tab.get_by_role("button", name="Only rain").click()
    tab.get_by_role("button", name="Advanced").click()
    tab.get_by_label("number input for Steps").fill("3")
    tab.get_by_label("number input for Steps").press("Tab")
    seed = tab.get_by_label("Seed", exact=True)
    tab.get_by_role("button", name="New seed").click()
    tab.wait_for_function("() => [...document.querySelectorAll('input[type=number]')].some(i => +i.value > 1000)")
    chosen = int(seed.input_value())
    expected = restorer(path, steps=3, seed=chosen, only=["rain"]).image
    assert np.array_equal(np.asarray(restore(tab)), np.asarray(expected))


def message(tab, words: str) -> None:
    """A message is shown, alone, and says `words`."""
    toast = tab.get_by_test_id("toast-body")
    toast.wait_for()
    assert toast.count() == 1 and words in toast.inner_text(), toast.inner_text()
    assert "Traceback" not in tab.content()
    toast.get_by_label("Close", exact=True).click()
    toast.wait_for(state="detached")


def test_bad_files_are_answered_and_the_next_one_works(visit, restorer, tmp_path, capfd):
    tab = visit()
    tab.get_by_role("button", name="Restore", exact=True).click()
    message(tab, "Choose a photograph first")
    good = draw(tmp_path, "plain.png")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:200])
    (tmp_path / "<b>empty.png").write_bytes(b"")
    (tmp_path / "words.jpg").write_text("no picture at all")
    Image.new("RGB", (1000, 501)).save(tmp_path / "wide.png")
    for name, words in (("words.jpg", "words.jpg: is not a readable image"), ("wide.png", "accepts at most 0.5")):
        tab.set_input_files("#f2d-upload input[type=file]", tmp_path / name)
        message(tab, words)
        tab.wait_for_selector("#f2d-upload input[type=file]", state="attached")
    upload(tab, tmp_path / "half.png")  # its header is as it should be
    tab.get_by_role("button", name="Restore", exact=True).click()
    message(tab, "half.png: damaged or truncated")
    upload(tab, good)
    assert np.array_equal(np.asarray(restore(tab)), np.asarray(restorer(good).image))
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_beyond_the_limit_is_not_sent(visit, address, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    tab = visit()
    tab.set_input_files("#f2d-upload input[type=file]", tmp_path / "large.png")
    message(tab, "exceed the maximum allowed size of 1.0 Mb")
    large = {"name": "a.png", "mimeType": "image/png", "buffer": bytes(2**20 + 1)}
    answer = tab.request.post(f"{address}gradio_api/upload", multipart={"files": large})
    assert answer.status == 413  # nor taken from whoever asks without the page


def test_a_deep_tiff_is_shown_and_stays_deep(visit, restorer, tmp_path):
    path, tab = draw(tmp_path, "deep.tiff"), visit()
    upload(tab, path)
    tab.wait_for_selector("#f2d-upload img[src$='preview.png']")  # in place of the file itself, which no browser shows
    tab.get_by_role("button", name="Restore", exact=True).click()
    tab.wait_for_selector(".stage")
    with tab.expect_download() as waiting:
        tab.locator("#f2d-download").click()
    assert waiting.value.suggested_filename == "deep_restored.tiff"
    saved = tmp_path / "saved.tiff"
    waiting.value.save_as(saved)
    assert read(saved).depth == 16


def test_two_people_get_their_own_and_the_second_sees_the_queue(visit, held, restorer, tmp_path):
    paths = [draw(tmp_path, "plain.png"), draw(tmp_path, "grey.png")]
    tabs = [visit(), visit()]
    for tab, path in zip(tabs, paths):
        upload(tab, path)
    held.gate.clear()
    held.started.clear()
    try:
        for tab in tabs:
            tab.get_by_role("button", name="Restore", exact=True).click()
            assert held.started.wait(60)
        tabs[1].wait_for_function("() => /queue: 1\\/1/.test(document.body.innerText)")
    finally:
        held.gate.set()
    for tab, path in zip(tabs, paths):
        tab.wait_for_selector(".stage")
        photo = read(path)
        expected = photo.replaced(restorer(photo.tensor()).image).picture()
        assert np.array_equal(np.asarray(downloaded(tab)), np.asarray(expected))


def test_who_leaves_does_not_hold_up_the_queue(visit, held, address, tmp_path):
    path = draw(tmp_path, "plain.png")
    first, leaving, last = visit(), visit(), visit()
    for tab in (first, leaving, last):
        upload(tab, path)
    held.gate.clear()
    held.started.clear()
    calls = held.calls
    try:
        first.get_by_role("button", name="Restore", exact=True).click()
        assert held.started.wait(60)
        for place, tab in enumerate((leaving, last), 1):
            tab.get_by_role("button", name="Restore", exact=True).click()
            tab.wait_for_function(f"() => /queue: {place}\\/{place}/.test(document.body.innerText)")
        leaving.context.close()
        status = f"{address}gradio_api/queue/status"
        until(last, lambda: last.request.get(status).json()["queue_size"] == 1)
    finally:
        held.gate.set()
    last.wait_for_selector(".stage")
    assert held.calls == calls + 2


@pytest.mark.parametrize("width, scheme", [(360, "light"), (1280, "dark")])
def test_axe_and_width(visit, width, scheme, tmp_path):
    tab = visit(width, 900, color_scheme=scheme)
    upload(tab, draw(tmp_path, "plain.png"))
    restore(tab)
    for name in ("Strength of each factor", "Advanced"):
        tab.get_by_role("button", name=name).click()
    tab.locator("summary").click()
    assert "Research only." in tab.locator("details").inner_text()
    tab.wait_for_timeout(500)  # until what opens has opened: colours that fade in have no contrast
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    found = [v for v in violations(tab) if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:300] for n in v["nodes"]]) for v in found] == []


def test_what_was_made_is_deleted_and_the_examples_stay(browser, restorer, address):
    from f2d.app.limits import Limits
    from f2d.app.serve import serving

    before = dict(os.environ)
    with serving(restorer, "tiny", Limits(keep=2)) as another:
        folder, tab = Path(os.environ["GRADIO_TEMP_DIR"]), browser.new_page()
        tab.set_default_timeout(SLOW)
        tab.goto(another)
        examples = {path for path in folder.rglob("*") if path.is_file()}
        assert len(examples) == 4
        tab.get_by_role("button", name="coffee").click()
        tab.wait_for_selector("#f2d-upload img")
        tab.get_by_role("button", name="Restore", exact=True).click()
        tab.wait_for_selector(".stage")
        until(tab, lambda: {path for path in folder.rglob("*") if path.is_file()} == examples)
        tab.close()
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == before["GRADIO_TEMP_DIR"] != str(folder)
