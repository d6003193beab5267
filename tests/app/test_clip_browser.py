"""Short videos on the page in Chromium: upload, progress, players of before and after, download, refusals."""

import time

import pytest

from f2d.app.limits import Limits
from tests.browsing import violations, visits
from tests.video.support import frames_of, make_clip, packets_of

pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")
GRADIO_SAYS = ("Method not implemented.",)  # a warning of gradio's client (6.31) at every upload
SLOW = 60_000  # milliseconds


class Slow:
    """A restorer that takes `pause` seconds longer for each frame."""

    def __init__(self, restorer):
        self._restorer, self.pause = restorer, 0.0

    def __getattr__(self, name: str):
        return getattr(self._restorer, name)

    def __call__(self, *args, **options):
        time.sleep(self.pause)
        return self._restorer(*args, **options)


@pytest.fixture(scope="module")
def slow(restorer):
    return Slow(restorer)


@pytest.fixture(scope="module")
def address(slow):
    from f2d.app.serve import serving

    with serving(slow, "tiny", Limits(upload=2**20, clip_seconds=2, clip_megapixels=0.01)) as address:
        yield address


@pytest.fixture
def tab(browser, address):
    with visits(browser, address, (address, "data:", "blob:"), GRADIO_SAYS, SLOW) as visit:
        tab = visit()
        tab.get_by_role("button", name="Restore a short video").click()
        tab.wait_for_selector("#f2d-clip")
        yield tab


def upload(tab, path) -> None:
    if tab.locator("#f2d-clip .file-preview").count():
        tab.locator("#f2d-clip").get_by_label("Clear").click()
    tab.set_input_files("#f2d-clip input[type=file]", path)
    tab.wait_for_selector("#f2d-clip .file-preview")


def refused(tab, words: str) -> None:
    tab.get_by_role("button", name="Restore the video").click()
    toast = tab.get_by_test_id("toast-body")
    toast.wait_for()
    assert toast.count() == 1 and words in toast.inner_text(), toast.inner_text()
    toast.get_by_label("Close", exact=True).click()
    toast.wait_for(state="detached")


@pytest.mark.parametrize("name, codec", [("drive.webm", "libvpx-vp9"), ("drive.mp4", "libx264")])
def test_a_clip_is_restored_played_and_saved(tab, tmp_path, name, codec):
    assert "up to 2 seconds (120 frames) of 0.01 megapixels and 1 MiB" in tab.locator("#f2d-clip").inner_text()
    audio = ["eng"] if name.endswith("mp4") else []
    path = make_clip(tmp_path / name, codec=codec, audio=audio, count=25)
    upload(tab, path)
    tab.get_by_role("button", name="Restore the video").click()
    tab.wait_for_selector("#f2d-players video >> nth=1")
    players = tab.locator("#f2d-players video")
    assert players.count() == 2
    for i in range(2):
        tab.wait_for_function("i => document.querySelectorAll('#f2d-players video')[i].readyState >= 1", arg=i)
        assert players.nth(i).evaluate("video => [video.videoWidth, video.videoHeight]") == [64, 48]
        assert players.nth(i).evaluate("video => video.duration") == pytest.approx(1, abs=0.1)
        assert players.nth(i).evaluate("async video => { video.muted = true; await video.play(); return true }")
    assert "25 frames of 64 × 48" in tab.locator("#f2d-clip-line [role=status]").inner_text()
    with tab.expect_download() as waiting:
        tab.locator("#f2d-download-clip").click()
    assert waiting.value.suggested_filename == f"drive_restored{path.suffix}"
    saved = tmp_path / f"saved{path.suffix}"
    waiting.value.save_as(saved)
    assert len(frames_of(saved)) == 25
    if audio:
        assert packets_of(saved, 1) == packets_of(path, 1)
    found = [v for v in violations(tab) if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:300] for n in v["nodes"]]) for v in found] == []


def test_refusals_and_the_next_one_works(tab, tmp_path):
    tab.get_by_role("button", name="Restore the video").click()
    tab.get_by_test_id("toast-body").wait_for()
    assert "Choose a video first." in tab.get_by_test_id("toast-body").inner_text()
    tab.get_by_label("Close", exact=True).click()
    tab.get_by_test_id("toast-body").wait_for(state="detached")
    (tmp_path / "words.mp4").write_text("no video at all")
    for path, words in (
        (tmp_path / "words.mp4", "words.mp4: cannot be read as a video"),
        (make_clip(tmp_path / "long.mp4", count=70), "long.mp4: lasts 2.8 seconds"),
        (make_clip(tmp_path / "wide.mp4", size=(128, 96), count=3), "megapixels, but this page accepts at most 0.01"),
    ):
        upload(tab, path)
        refused(tab, words)
    upload(tab, make_clip(tmp_path / "good.mp4", count=3))
    tab.get_by_role("button", name="Restore the video").click()
    tab.wait_for_selector("#f2d-players video >> nth=1")


def test_the_number_of_frames_is_shown_while_it_runs(tab, slow, tmp_path):
    upload(tab, make_clip(tmp_path / "a.mp4", count=25))
    slow.pause = 0.3
    try:
        tab.get_by_role("button", name="Restore the video").click()
        tab.wait_for_function("() => /\\d+\\/25 frames/.test(document.querySelector('#f2d-players').innerText)")
    finally:
        slow.pause = 0.0
    tab.wait_for_selector("#f2d-players video >> nth=1")


def test_a_file_that_the_browser_does_not_play_is_named(tab, tmp_path):
    """MPEG-4 part 2 is restored, and the player before says that it cannot be played here."""
    upload(tab, make_clip(tmp_path / "old.mov", codec="mpeg4", count=3))
    tab.get_by_role("button", name="Restore the video").click()
    captions = tab.locator("#f2d-players figcaption")
    tab.wait_for_function("() => /not play/.test(document.querySelector('#f2d-players').innerText)")
    assert captions.all_inner_texts() == ["Before: this browser does not play the file", "Restored"]
