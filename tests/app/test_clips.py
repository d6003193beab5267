"""Short videos without a server: the file is that of `f2d restore`, limits, turns with photographs, errors."""

import importlib.util
import threading
from fractions import Fraction

import pytest

from f2d.app.clips import Clips
from f2d.app.limits import Limits
from f2d.app.work import Options, Work
from tests.app.conftest import Held, draw
from tests.cli.conftest import f2d  # noqa: F401
from tests.video.support import av, frames_of, make_clip, packets_of

from f2d.video import VideoError  # isort: skip  # after the check for PyAV
from f2d.video.source import about  # isort: skip


@pytest.fixture
def clips(restorer, tmp_path) -> Clips:
    limits = Limits(upload=10**6, clip_seconds=2, clip_megapixels=0.01)
    return Clips(Work(restorer, limits, tmp_path))


def test_the_file_is_that_of_f2d_restore(clips, f2d, model, tmp_path):  # noqa: F811
    path = make_clip(tmp_path / "drive.mp4", audio=["eng"])
    seen = []
    clip = clips.restore(path, Options(), lambda done, total: seen.append((done, total)))
    assert clip.after.name == "drive_restored.mp4" and clip.before == path
    target = tmp_path / "by_command.mp4"
    done = f2d("restore", path, "-o", target, "--model", model, "--precision", "float32")
    assert done.exit_code == 0, done.output
    assert clip.after.read_bytes() == target.read_bytes() and packets_of(clip.after, 1) == packets_of(path, 1)
    assert seen == [(i, 12) for i in range(1, 13)]
    assert "12 frames of 64 × 48" in clip.line and "float32 on CPU" in clip.line
    assert [p.name for p in clip.after.parent.iterdir()] == [clip.after.name]


@pytest.mark.parametrize("given, made", [("a.mov", ".mp4"), ("a.mkv", ".mp4"), ("a.M4V", ".mp4"), ("a.webm", ".webm")])
def test_browsers_play_what_is_made(clips, tmp_path, given, made):
    codec = "libvpx-vp9" if given.endswith("webm") else "libx264"
    muxer = "mp4" if given.endswith("M4V") else None
    after = clips.restore(make_clip(tmp_path / given, codec=codec, muxer=muxer, count=3), Options()).after
    assert after.suffix == made
    assert frames_of(after)[0].format.name == "yuv420p"


def test_options_are_the_restorers(clips, tmp_path):
    path = make_clip(tmp_path / "a.mp4", count=3)
    made = [clips.restore(path, options).after.read_bytes() for options in (Options(), Options(strength={"rain": 0.0}))]
    assert made[0] != made[1]


@pytest.mark.parametrize(
    "name, more, words",
    [
        ("large.mp4", {"size": (128, 96)}, "large.mp4: has frames of 128 × 96 = 0.01 megapixels, but .* at most 0.01"),
        ("long.mp4", {"count": 70}, "long.mp4: lasts 2.8 seconds, but this page accepts at most 2"),
        ("fast.mp4", {"count": 130, "rate": 100}, "fast.mp4: has 130 frames, but this page accepts at most 120"),
        ("a.avi", {}, r"a.avi: must be one of \.mp4, .*\.webm"),
        ("alpha.mkv", {"codec": "ffv1", "pixel_format": "yuva420p"}, r"^alpha.mkv: transparency"),
    ],
)
def test_what_is_beyond_the_limits(clips, tmp_path, name, more, words):
    with pytest.raises(VideoError, match=words) as caught:
        clips.restore(make_clip(tmp_path / name, **more), Options())
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.rglob("*.segments")) and not list(tmp_path.rglob("*_restored*"))


def test_no_frame_is_decoded_of_what_is_beyond_the_limits(clips, tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", size=(128, 96))
    monkeypatch.setattr("f2d.video.source._probed", lambda *_: pytest.fail("a frame was decoded"))
    with pytest.raises(VideoError, match="megapixels"):
        clips.restore(path, Options())


def test_a_header_that_says_less_is_found_out(clips, tmp_path, monkeypatch):
    path, calls = make_clip(tmp_path / "a.mp4", count=130, rate=100), []
    monkeypatch.setattr("f2d.video.source.about", lambda path: about(path)._replace(seconds=None, frames=None))
    call = clips.work.call
    monkeypatch.setattr(clips.work, "call", lambda *a, **k: calls.append(1) or call(*a, **k))
    with pytest.raises(VideoError, match=r"^a\.mp4: has more than 120 frames"):
        clips.restore(path, Options())
    assert len(calls) == 120 and not list(tmp_path.rglob("*.segments"))


@pytest.mark.parametrize("content", [b"", b"no video", b"ffconcat version 1.0\nfile private.ts\n"])
def test_a_broken_file_is_named_as_its_owner_does(clips, tmp_path, content):
    make_clip(tmp_path / "private.ts")
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"^a\.mp4: cannot be read as a video") as caught:
        clips.restore(tmp_path / "a.mp4", Options())
    assert str(tmp_path) not in str(caught.value)


def test_warnings_are_told_without_the_path(clips, tmp_path):
    lines = clips.restore(make_clip(tmp_path / "a.mkv", subtitles="subrip"), Options()).line.splitlines()
    assert len(lines) == 2 and lines[1].startswith("a.mkv: stream 1 (subtitle")


def test_what_is_no_file_of_the_folder_is_not_opened(clips, tmp_path, tmp_path_factory):
    outside = make_clip(tmp_path_factory.mktemp("private") / "a.mp4")
    (tmp_path / "link.mp4").symlink_to(outside)
    for path in (outside, tmp_path / "link.mp4", tmp_path / "nowhere.mp4"):
        with pytest.raises(FileNotFoundError):
            clips.restore(path, Options())


def test_memory_that_is_too_small_is_told(restorer, tmp_path):
    path = make_clip(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"^a\.mp4: 64 × 48 pixels need more memory"):
        Clips(Work(restorer, Limits(memory=1), tmp_path)).restore(path, Options())
    assert not list(tmp_path.rglob("*.segments"))


def test_a_photograph_need_not_wait_for_a_whole_video(restorer, tmp_path):
    """They take turns: at most `together` calls of the model at one time."""
    held = Held(restorer)
    work = Work(held, Limits(together=1), tmp_path)
    held.gate.clear()
    film = threading.Thread(target=lambda: Clips(work).restore(make_clip(tmp_path / "a.mp4", count=100), Options()))
    film.start()
    assert held.started.wait(60)
    photo = threading.Thread(target=lambda: work.restore(draw(tmp_path, "plain.png"), Options()))
    photo.start()
    photo.join(1)
    assert held.calls == 1  # the photograph waits for the frame
    held.gate.set()
    photo.join(60)
    assert not photo.is_alive() and film.is_alive() and held.calls < 101
    film.join(120)
    assert held.calls == 101


def test_the_header_is_described_without_decoding(tmp_path):
    assert about(make_clip(tmp_path / "a.mp4", count=25)) == (64, 48, 1.0, 25)
    late = make_clip(tmp_path / "b.mkv", times=[0, 40, 2000], time_base=Fraction(1, 1000), count=3)
    assert about(late)[:2] == (64, 48) and 2 <= about(late).seconds < 2.1
    with av.open(str(tmp_path / "c.mp4"), "w") as out:
        out.add_stream("aac", rate=48000, layout="mono")
        out.start_encoding()
    with pytest.raises(VideoError, match=r"c\.mp4: "):
        about(tmp_path / "c.mp4")


def test_without_the_extra_the_page_says_how_to_install_it(work, monkeypatch):
    gr = pytest.importorskip("gradio", reason="needs gradio (pip install gradio)")
    from f2d.app.page import build

    def texts() -> str:
        return " ".join(
            str(block.value) for block in build(work, "m", "", []).blocks.values() if type(block) is gr.HTML
        )

    assert "PyAV" not in texts()
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "av" else found(name, *more))
    assert "Restoring videos needs PyAV, which is not installed: pip install &quot;f2d[video]&quot;" in texts()
