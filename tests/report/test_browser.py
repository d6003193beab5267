"""The page in Chromium: what a reader does with mouse, finger and keyboard, and what axe-core finds."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.browsing import RULES, violations, visits


@pytest.fixture
def visit(browser, page):
    """visit(width, height, **context): the page opened, checked at the end for complaints and requests."""
    with visits(browser, page[0].as_uri(), ("file:", "data:")) as open_:
        yield open_


def pixels(stage) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB")).astype(int)


def edge(stage) -> float:
    """Where the left picture ends, as a part of the width: read from the clip that is in force."""
    return stage.evaluate(
        """stage => {
            const layer = stage.querySelector(".layer.left"), clip = getComputedStyle(layer).clipPath;
            const [, right] = clip.match(/inset\\(0px (?:calc\\(100% - ([\\d.]+)%\\)|[\\d.]+%)/) ?? [];
            return right === undefined ? 1 - parseFloat(clip.split(" ")[1]) / 100 : parseFloat(right) / 100;
        }"""
    )


def test_mouse_moves_the_divider_and_what_is_seen(visit):
    tab = visit()
    stage = tab.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    before = pixels(stage)
    assert edge(stage) == 0.5
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.75)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.75, steps=3)
    assert edge(stage) == pytest.approx(0.8, abs=0.005)
    tab.mouse.up()
    tab.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.75)
    assert edge(stage) == pytest.approx(0.8, abs=0.005)  # let go is let go
    after, width = pixels(stage), before.shape[1]
    changed = np.abs(after - before).mean((0, 2)) > 4
    between = changed[int(0.56 * width) : int(0.76 * width)]
    assert between.mean() > 0.9 and not changed[: int(0.44 * width)].any() and not changed[int(0.86 * width) :].any()
    # what was uncovered is the input, as seen when it is all that is seen
    tab.keyboard.press("End")
    whole = pixels(stage)
    assert np.abs(whole - after)[:, int(0.56 * width) : int(0.76 * width)].mean() < 0.5


def test_keyboard_moves_the_divider(visit):
    tab = visit()
    stage, slider = tab.locator(".stage").first, tab.locator(".stage input").first
    slider.focus()
    for key, place in (("ArrowRight", 0.51), ("ArrowLeft", 0.5), ("Home", 0), ("End", 1), ("PageDown", 0.9)):
        tab.keyboard.press(key)
        assert edge(stage) == pytest.approx(place), key
    tab.keyboard.press("Shift+ArrowLeft")
    assert edge(stage) == pytest.approx(0.8)
    assert slider.get_attribute("aria-valuetext") == "80% Input"
    assert stage.evaluate("s => getComputedStyle(s).outlineStyle") == "solid"  # the focus can be seen


def test_touch_moves_the_divider(visit):
    tab = visit(390, 844, has_touch=True, is_mobile=True)
    stage = tab.locator(".stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = (lambda part: box["x"] + part * box["width"]), box["y"] + box["height"] / 2
    fingers = tab.context.new_cdp_session(tab)

    def touch(kind, *places):
        points = [{"x": x(place), "y": y} for place in places]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.5)
    for place in (0.45, 0.4, 0.35, 0.3):
        touch("touchMove", place)
    touch("touchEnd")
    assert edge(stage) == pytest.approx(0.3, abs=0.02)
    tab.touchscreen.tap(x(0.9), y)
    assert edge(stage) == pytest.approx(0.9, abs=0.02)
    assert stage.evaluate("s => getComputedStyle(s).touchAction") == "pan-y"  # the page still scrolls


def sides(tab) -> list[str]:
    return [tab.locator(f".stage .layer.{side}").first.get_attribute("data-source") for side in ("left", "right")]


def test_any_two_pictures_are_compared(visit):
    tab = visit()
    assert sides(tab) == ["Input", "F²D-Net lite"]
    tab.select_option("#left", "Ground truth")
    assert sides(tab) == ["Ground truth", "F²D-Net lite"]
    tab.select_option("#right", "Median 3×3")
    assert sides(tab) == ["Ground truth", "Median 3×3"]
    tab.select_option("#right", "Ground truth")  # the two change places
    assert sides(tab) == ["Median 3×3", "Ground truth"]
    assert tab.locator("#left").input_value() == "Median 3×3"
    seen = tab.locator(".stage").first.locator(".layer:visible figcaption").all_inner_texts()
    assert seen == ["Median 3×3", "Ground truth"]


def test_zoom_magnifies_about_the_pointer(visit):
    tab = visit()
    stage = tab.locator(".stage").first
    tab.select_option("#zoom", "4")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
    image = stage.locator(".layer.right img").evaluate(
        "i => { const b = i.getBoundingClientRect(); return [b.x, b.y, b.width] }"
    )
    assert image[2] == pytest.approx(4 * box["width"])
    assert image[0] == pytest.approx(box["x"] - 3 * box["width"] * 0.25, abs=3)
    assert image[1] == pytest.approx(box["y"] - 3 * box["height"] * 0.75, abs=3)


def names(tab) -> list[str]:
    return tab.locator(".picture:visible h3").all_inner_texts()


def test_pictures_are_filtered_and_ordered(visit, sample):
    from f2d.evaluation.folder import EvaluationFolder
    from tests.report.sample import ERROR, PSNR

    tab, folders = visit(), [EvaluationFolder.open(folder) for folder in sample.folders]

    def by(folder, about):
        return sorted((c.name for c in sample.data.cases), key=lambda name: folder.record(name).values[about.key])

    everything = [case.name for case in sample.data.cases]
    assert names(tab) == everything
    tab.select_option("#order", label="worst first by PSNR, dB ↑")
    assert names(tab) == by(folders[0], PSNR) != everything
    tab.select_option("#order", label="best first by Error ↓")
    assert names(tab) == by(folders[0], ERROR)
    tab.select_option("#right", "Median 3×3")
    assert names(tab) == by(folders[1], ERROR)
    tab.select_option("#order", "")
    tab.select_option("#show", "rain")
    assert names(tab) == [case.name for case in sample.data.cases if case.category == "rain"]
    assert tab.locator(".status").inner_text() == f"1 of {len(everything)} pictures"


def test_next_and_previous(visit):
    tab = visit(1200, 700)

    def on_top() -> int:
        tops = tab.evaluate("[...document.querySelectorAll('.picture')].map(p => p.getBoundingClientRect().top)")
        line = tab.locator(".sticky").bounding_box()
        return int(np.argmin(np.abs(np.array(tops) - line["y"] - line["height"])))

    tab.get_by_role("button", name="Next").click()
    tab.get_by_role("button", name="Next").click()
    assert on_top() == 1
    tab.get_by_role("button", name="Previous").click()
    assert on_top() == 0
    tab.locator(".stage input").first.focus()
    tab.keyboard.press("n")
    tab.keyboard.press("n")
    assert on_top() == 2
    tab.keyboard.press("ArrowRight")  # it is the divider of the picture on top that moves now
    assert edge(tab.locator(".stage").nth(2)) == pytest.approx(0.51)
    tab.keyboard.press("p")
    assert on_top() == 1
    scrolled = tab.evaluate("scrollY")
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press("n")  # letters mean nothing outside the pictures
    assert tab.evaluate("scrollY") == scrolled


def test_theme_follows_the_system_and_the_button(visit):
    def dark(tab) -> bool:
        return tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(17, 19, 21)"

    tab = visit(color_scheme="dark")
    button = tab.locator(".theme")
    assert dark(tab) and button.get_attribute("aria-pressed") == "true"
    button.click()
    assert not dark(tab) and button.get_attribute("aria-pressed") == "false"
    tab.emulate_media(color_scheme="light")
    button.click()
    assert dark(tab)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_axe_finds_nothing(visit, scheme, width):
    tab = visit(width, 900, color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found = violations(tab, (*RULES, "best-practice"))
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in found] == []


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1440])
def test_page_never_scrolls_sideways(visit, width):
    tab = visit(width, 800)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.evaluate("scrollTo(500, 0)")
    assert tab.evaluate("scrollX") == 0


def test_wide_tables_scroll_in_their_box_by_keyboard(visit):
    tab = visit(360, 800)
    box = tab.get_by_role("region", name="Methods")
    box.focus()
    assert box.evaluate("b => b.scrollWidth > b.clientWidth")
    tab.keyboard.press("ArrowRight")
    for _ in range(60):  # it scrolls smoothly; wait_for_function would need the eval that the page's policy forbids
        if box.evaluate("b => b.scrollLeft"):
            break
        tab.wait_for_timeout(50)
    assert box.evaluate("b => b.scrollLeft") > 0


def test_print_and_no_script_show_all_sources_side_by_side(visit):
    tab = visit()
    tab.emulate_media(media="print")
    first = tab.locator(".stage").first
    boxes = [layer.bounding_box() for layer in first.locator(".layer").all()]
    assert len(boxes) == 4 and all(box["width"] > 100 and box["height"] > 50 for box in boxes)
    assert len({(box["x"], box["y"]) for box in boxes}) == 4
    assert not tab.locator(".sticky").is_visible() and not first.locator("input").is_visible()
    still = visit(java_script_enabled=False)
    assert still.locator(".stage").first.locator(".layer:visible").count() == 4
    assert not still.locator(".sticky").is_visible()


def test_the_policy_is_in_force(browser, page):
    """What the page holds no place for does nothing: no address is asked for, no script runs that came in later."""
    context = browser.new_context()
    tab, heard = context.new_page(), []
    tab.on("console", lambda message: heard.append(message.text))
    tab.goto(page[0].as_uri())
    tab.evaluate("new Promise(r => { const i = new Image(); i.onerror = r; i.src = 'http://127.0.0.1:9/x.png' })")
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.bad = 1'}))")
    assert tab.evaluate("window.bad") is None
    context.close()
    assert sum("Content Security Policy" in text for text in heard) == 2
