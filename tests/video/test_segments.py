"""An interrupted video leaves nothing that looks finished, and a rerun does what is missing, with the same result."""

import json
import struct
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from f2d.nets import F2DNet
from f2d.video import EncodingOptions
from tests.nets.small import small_config

from .support import av, frames_of, gentle, identity, make_clip, read_planes, retimed, times_of

from bench.video import write_clip  # isort: skip
from f2d.engine.restorer import Restorer  # isort: skip
from f2d.engine.execution import choose_execution  # isort: skip
from f2d.video import restoring  # isort: skip
from f2d.video.restoring import restore_video  # isort: skip
from f2d.video.segments import Encoded, Segments  # isort: skip

VARIABLE = [0, 700, 1300, 2900, 3000, 3900, 5500, 5600, 5700, 7100, 8000, 9000]


@pytest.fixture
def short(monkeypatch):
    """Segments of five frames."""
    monkeypatch.setattr(restoring, "SEGMENT", 5)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(1)
    net = F2DNet(small_config())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Restorer(net, choose_execution("cpu", "float32"))


class Interrupting:
    """A restoration that is interrupted at its n-th frame, and counts."""

    def __init__(self, restore, at=None):
        self.restore, self.at, self.count = restore, at, 0

    def __call__(self, image, /, *, adjust=None):
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt
        return self.restore(image, adjust=adjust, seed=7)


@pytest.mark.parametrize("times", [None, VARIABLE], ids=["constant", "variable"])
def test_a_rerun_does_what_is_missing_and_ends_the_same(tmp_path, short, restorer, times):
    """To the byte, the smoothing over time included, as it goes on where it was."""
    base = None if times is None else Fraction(1, 30000)
    source = make_clip(tmp_path / "a.mp4", audio=["eng"], times=times, time_base=base)
    whole = Interrupting(restorer)
    restore_video(source, tmp_path / "whole.mp4", whole)
    interrupted, rest = Interrupting(restorer, at=9), Interrupting(restorer)
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, tmp_path / "parts.mp4", interrupted)
    assert not (tmp_path / "parts.mp4").exists()
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert folder.name.startswith(".")
    done = restore_video(source, tmp_path / "parts.mp4", rest)
    assert (whole.count, rest.count, done.frames, done.kept) == (12, 7, 12, 5)
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "parts.mp4", "whole.mp4"]


def test_other_options_or_another_source_begin_anew(tmp_path, short):
    source = make_clip(tmp_path / "a.mp4")

    def left(key, options=EncodingOptions()):  # noqa: B008  # immutable
        rest = Interrupting(lambda image, adjust, seed: identity(image))
        restore_video(source, tmp_path / "b.mp4", rest, options, key=key)
        return rest.count

    def interrupt():
        with pytest.raises(KeyboardInterrupt):
            restore_video(
                source,
                tmp_path / "b.mp4",
                Interrupting(lambda image, adjust, seed: identity(image), at=7),
                key={"seed": 1},
            )

    for key, options, expected in (
        ({"seed": 1}, EncodingOptions(), 7),
        ({"seed": 2}, EncodingOptions(), 12),
        ({"seed": 1}, EncodingOptions(crf=30), 12),
        ({"seed": 1}, EncodingOptions(smoothing=0), 12),
    ):
        interrupt()
        assert left(key, options) == expected
    interrupt()
    make_clip(source, count=13)
    assert left({"seed": 1}) == 13


def test_a_segment_without_its_mark_does_not_count(tmp_path):
    segments = Segments(tmp_path / "a.mp4", {})
    packets = [Encoded(10 * i, i == 0, bytes([i])) for i in range(3)]
    segments.write(packets, lambda: {})

    def fails():
        yield packets[0]
        raise OSError

    with pytest.raises(OSError):
        segments.write(fails(), lambda: {})
    again = Segments(tmp_path / "a.mp4", {})
    assert (again.count, again.frames) == (1, 3)
    assert list(again.packets(25)) == list(zip(packets, [(0, 10), (10, 10), (20, 5)]))
    assert not list(segments.folder.glob("*.part"))


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_decoding_times(tmp_path, short, codec, monkeypatch):
    """They increase over all segments and never come after the presentation, whatever the rate does."""
    kept = []
    monkeypatch.setattr(Segments, "remove", lambda self: kept.append(self))
    times = [t + 9000 * k for k in range(3) for t in VARIABLE[:-1]]
    source = make_clip(tmp_path / "a.mp4", count=33, times=times, time_base=Fraction(1, 30000))
    restore_video(source, tmp_path / "b.mp4", identity, EncodingOptions(codec))
    packets = list(kept[-1].packets(times[-1] + 600))
    decoding = [time.decoded for _, time in packets]
    assert len(packets) == 33 and decoding == sorted(set(decoding))
    assert all(time.decoded <= encoded.pts for encoded, time in packets)
    shown = sorted((encoded.pts, time.duration) for encoded, time in packets)
    assert shown == [(a, b - a) for a, b in pairwise([*times, times[-1] + 600])]
    assert decoding[-1] + packets[-1][1].duration - decoding[0] == times[-1] + 600
    assert sorted(encoded.pts for encoded, _ in packets) == times
    assert [i for i, (encoded, _) in enumerate(packets) if encoded.key] == list(range(0, 33, 5))
    assert any(a.pts > b.pts for (a, _), (b, _) in pairwise(packets)), "the encoder should reorder frames"
    assert times_of(tmp_path / "b.mp4") == times_of(source)
    with av.open(str(tmp_path / "b.mp4")) as container:  # a key frame is where one can seek to
        container.seek(round(times[12] * 1e6 / 30000))
        assert next(container.decode(video=0)).pts == times[10]


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9", "ffv1"])
def test_two_runs_give_the_same_bytes(tmp_path, codec):
    """Whatever is in the memory that the encoder gets: x264's AVX-512 code gave four files in ten runs."""
    write_clip(tmp_path / "a.mp4", 24)
    made = set()
    for i in range(8 if codec == "h264" else 2):
        restore_video(tmp_path / "a.mp4", tmp_path / "b.mkv", identity, EncodingOptions(codec))
        made.add((tmp_path / "b.mkv").read_bytes())
        (tmp_path / "b.mkv").unlink()
        bytes([255]) * (1 << (16 + i))
    assert len(made) == 1


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9", "ffv1"])
def test_segments_of_every_codec_join(tmp_path, short, codec):
    """Every frame of the joined stream decodes to what was encoded, across the joints too."""
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", picture=gentle)
    done = restore_video(source, tmp_path / "b.mkv", identity, EncodingOptions(codec, None if codec == "ffv1" else 1))
    before, after = frames_of(source), frames_of(tmp_path / "b.mkv")
    assert (done.codec, len(after)) == (codec, 12)
    for one, other in zip(before, after):
        luma = [read_planes(frame)[0].astype(int) for frame in (one, other)]
        assert abs(luma[0] - luma[1]).mean() < 1.5  # consecutive frames of this clip differ by 3.7


def test_a_rerun_finds_its_place_in_streams_without_an_index(tmp_path, short):
    source = make_clip(tmp_path / "a.ts")
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, tmp_path / "b.mkv", Interrupting(lambda image, adjust, seed: identity(image), at=9))
    rest = Interrupting(lambda image, adjust, seed: identity(image))
    done = restore_video(source, tmp_path / "b.mkv", rest)
    assert (rest.count, done.frames) == (7, 12)
    assert len(times_of(tmp_path / "b.mkv")) == 12


def test_segments_of_another_format_begin_anew(tmp_path, monkeypatch):
    """Those that an earlier version left cannot be read."""
    Segments(tmp_path / "a.mp4", {}).write([Encoded(1, True, b"x")], lambda: {})
    monkeypatch.setattr("f2d.video.segments._HEADER", struct.Struct("<qq?I"))
    assert Segments(tmp_path / "a.mp4", {}).count == 0
    assert Segments(tmp_path / "a.mp4", {}).count == 0


@pytest.mark.parametrize("at", [6, 8, 11])
def test_a_rerun_finds_its_place_where_times_go_back(tmp_path, short, at):
    """No frame is lost or restored twice, and the warnings are those of a run without an interruption."""
    source = retimed(make_clip(tmp_path / "a.flv", codec="flv", options={"g": "3"}), 9, lambda i, time: time % 240)
    whole = restore_video(source, tmp_path / "whole.mkv", identity)
    with pytest.raises(KeyboardInterrupt):
        restore_video(source, tmp_path / "parts.mkv", Interrupting(lambda image, adjust, seed: identity(image), at=at))
    done = restore_video(source, tmp_path / "parts.mkv", identity)
    assert (done.frames, done.kept, done.warnings) == (12, (at - 1) // 5 * 5, whole.warnings)
    assert (tmp_path / "parts.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()


def test_marks_are_plain_json(tmp_path):
    segments = Segments(tmp_path / "a.mp4", {"b": 1, "a": [2]})
    segments.write([Encoded(pts, pts == 3, b"x") for pts in (3, 1, 2)], lambda: {"s": 1})
    assert json.loads((segments.folder / "0.json").read_text()) == {"times": [3, 1, 2], "state": {"s": 1}}
    assert [time for _, time in segments.packets(4)] == [(0, 1), (1, 1), (2, 1)]
