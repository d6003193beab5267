"""Eight people at once in Chromium, two more by hand: everyone is served or refused with words, within bounds."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.app.sender import FORM, Sender
from tests.browsing import visits

pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")
SLOW = 240_000  # milliseconds
UPLOAD, DISK = 2**20, 24 * 2**20
SERVED = 6
# what the page's own script would do without its check of the size
SEND = """async size => {
    const form = new FormData();
    form.append("files", new Blob([new Uint8Array(size)]), "large.png");
    const answer = await fetch("gradio_api/upload", {method: "POST", body: form});
    return [answer.status, await answer.text()];
}"""
EXPECTED = (
    "Method not implemented.",  # a warning of gradio's client at every upload
    "Failed to load resource: the server responded with a status of 413 (Request Entity Too Large)",
    "Failed to load resource: the server responded with a status of 413 ()",
    # gradio's client asks for the progress of an upload that has ended already, and prints the answer
    "Failed to load resource: the server responded with a status of 404 (Not Found)",
    "Response",
)


def memory(name: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    return 1024 * int(re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def photograph(folder: Path, number: int) -> Path:
    """240x160, noisy, so that its file has some 100 kB."""
    path = folder / f"{number}.png"
    noise = np.random.default_rng(number).integers(0, 256, (160, 240, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def endless(host: str) -> tuple[int, tuple[int, str]]:
    """Upload in chunks until the server has had enough: the bytes sent, and its answer."""
    sender = Sender((host,), "Transfer-Encoding: chunked")
    sender.chunk(FORM)
    sent = sender.send_until_refused(lambda: sender.chunk(bytes(2**14)), 10**6)
    return sent * 2**14, sender.answer()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc")
def test_eight_people_at_once(browser, restorer, tmp_path):
    from f2d.app.disk import used
    from f2d.app.limits import Limits
    from f2d.app.serve import serving

    paths = [photograph(tmp_path, i) for i in range(SERVED)]
    expected = [np.asarray(restorer(path).image) for path in paths]
    (tmp_path / "large.png").write_bytes(bytes(UPLOAD + 1))
    limits = Limits(megapixels=0.5, upload=UPLOAD, together=2, disk=DISK)
    with serving(restorer, "tiny", limits) as address, ThreadPoolExecutor(3) as others, ExitStack() as ending:
        folder, host = Path(os.environ["GRADIO_TEMP_DIR"]), re.search("//(.+?)/", address)[1]
        own = (address, "data:", "blob:")
        over = threading.Event()
        ending.callback(over.set)  # before the executor waits for its threads

        def watch() -> int:
            largest = 0
            while not over.wait(0.05):
                largest = max(largest, used(folder))
            return largest

        with visits(browser, address, own, EXPECTED, SLOW) as visit:
            tabs = [visit() for _ in range(8)]
            for tab in tabs:
                tab.wait_for_selector("#f2d-restore")
            Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
            before, start = memory("VmRSS"), time.monotonic()
            disk = others.submit(watch)
            tabs[5].context.new_cdp_session(tabs[5]).send(
                "Network.emulateNetworkConditions",
                {"offline": False, "latency": 100, "downloadThroughput": -1, "uploadThroughput": 40_000},
            )
            declared = Sender((host,), f"Content-Length: {5 * 10**9}")
            by_hand = others.submit(endless, host)
            for tab, path in zip(tabs, [*paths, tmp_path / "large.png"]):  # none is waited for
                tab.set_input_files("#f2d-upload input[type=file]", path)
            toast = tabs[6].get_by_test_id("toast-body")  # for ten seconds
            toast.wait_for()
            assert "exceed the maximum allowed size of 1.0 Mb" in toast.inner_text()
            status, text = tabs[7].evaluate(SEND, 3 * UPLOAD)
            assert (status, "maximum allowed size of 1.062 MiB" in text) == (413, True), text
            for tab in tabs[:SERVED]:
                tab.wait_for_selector("#f2d-upload img")
                tab.get_by_role("button", name="Restore", exact=True).click()
            served = []
            for tab, pixels in zip(tabs, expected):
                tab.wait_for_selector(".stage")
                served.append(time.monotonic() - start)
                with tab.expect_download() as waiting:
                    tab.locator("#f2d-download").click()
                assert np.array_equal(np.asarray(Image.open(waiting.value.path())), pixels)
            sent, (status, text) = by_hand.result(SLOW / 1000)
            assert (status, "maximum allowed size" in text) == (413, True) and sent < UPLOAD + 16 * 2**20
            assert declared.answer()[0] == 413 and declared.is_closed()
        over.set()
        most = disk.result()
        grown = memory("VmHWM") - before
    print(
        f"6 of 8 served within {max(served):.1f} s, the first after {min(served):.1f} s, 2 refused; the memory grew by "
        f"{grown >> 20} MiB, the files by up to {most >> 20} MiB of {DISK >> 20}"
    )
    assert most <= DISK and grown < 400 * 2**20
    assert not folder.exists()
