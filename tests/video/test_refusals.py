"""Videos that cannot be restored or encoded: one line that names the file and says why, and nothing written."""

from fractions import Fraction

import numpy as np
import pytest

from f2d.video import EncodingOptions, VideoError

from .support import av, frames_of, identity, make_clip, result, times_of

from f2d.video import encoding  # isort: skip
from f2d.video.restoring import restore_video  # isort: skip


def refused(source, target, *words, options=EncodingOptions()):  # noqa: B008  # immutable
    with pytest.raises(VideoError) as caught:
        restore_video(source, target, identity, options)
    message = str(caught.value)
    assert str(source) in message and "\n" not in message, message
    for word in words:
        assert word in message, message
    assert sorted(path.name for path in target.parent.iterdir()) == [source.name]


def test_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    refused(path, tmp_path / "b.mp4", "cannot be read as a video")
    path.unlink()
    with pytest.raises(VideoError, match=r"a.mp4: cannot be read as a video \(no such file"):
        restore_video(path, tmp_path / "b.mp4", identity)


def test_sound_alone(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        track = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    refused(path, tmp_path / "b.mp4", "has no video stream")


def test_interlaced(tmp_path):
    source = make_clip(tmp_path / "a.mp4", options={"x264-params": "tff=1"})
    refused(source, tmp_path / "b.mp4", "interlaced", "deinterlace it first", "bwdif")


def test_transparency(tmp_path):
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", pixel_format="yuva420p")
    refused(source, tmp_path / "b.mkv", "transparency (yuva420p)")


def test_an_unknown_matrix(tmp_path):
    source = make_clip(tmp_path / "a.mkv", colour={"colorspace": 8})
    refused(source, tmp_path / "b.mkv", "colour matrix 8", "1, 4, 5, 6, 7, 9")


def test_a_change_of_size(tmp_path):
    source = tmp_path / "a.ts"
    parts = [make_clip(tmp_path / f"{w}.ts", size=(w, 48)) for w in (64, 96)]
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    refused(source, tmp_path / "b.mkv", "64x48", "96x48", "change")


@pytest.mark.parametrize(
    "suffix, options, words",
    [
        (".webm", EncodingOptions("h264"), ("h264", "vp9, av1")),
        (".mkv", EncodingOptions("h264", 60), ("h264", "up to 51", "60")),
        (".mkv", EncodingOptions("ffv1", 10), ("ffv1 is lossless",)),
        (".mp4", EncodingOptions("h264"), ("65x49 yuv420p",)),
        (".webm", EncodingOptions("av1"), ("av1",)),
    ],
)
def test_codecs_that_do_not_fit(tmp_path, suffix, options, words):
    form = "yuv444p" if options.codec == "av1" else "yuv420p"
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", size=(65, 49), pixel_format=form)
    refused(source, tmp_path / f"b{suffix}", *words, options=options)


def test_a_build_without_an_encoder(tmp_path, monkeypatch):
    """The next codec is taken, unless that one was asked for."""
    source = make_clip(tmp_path / "a.mp4")
    monkeypatch.setitem(encoding.ENCODERS, "h264", encoding.ENCODERS["h264"]._replace(name="libabsent"))
    refused(source, tmp_path / "b.mp4", "this build of FFmpeg lacks libabsent", options=EncodingOptions("h264"))
    assert restore_video(source, tmp_path / "b.mp4", identity).codec == "h265"


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9"])
def test_quality_reaches_the_encoder(tmp_path, codec):
    """0 is the best, also where FFmpeg's own option takes it for none."""
    source = make_clip(tmp_path / "a.mp4", count=4, size=(128, 96))
    sizes = []
    for crf in (0, 40):
        restore_video(source, tmp_path / "b.mp4", identity, EncodingOptions(codec, crf))
        sizes.append((tmp_path / "b.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_truncated_video_is_restored_as_far_as_it_goes(tmp_path, suffix):
    """With one line that says so, where the header promises more."""
    start = {"movflags": "faststart"} if suffix == "mp4" else None
    whole = make_clip(tmp_path / f"whole.{suffix}", count=100, options={"g": "10"}, container_options=start)
    source = tmp_path / f"a.{suffix}"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    done = restore_video(source, tmp_path / "b.mkv", identity)
    assert 20 < done.frames < 80 and len(frames_of(tmp_path / "b.mkv")) == done.frames
    said = [line for line in done.warnings if "truncated" in line and "of 4.0 s" in line]
    assert len(said) == (0 if suffix == "ts" else 1)  # a transport stream promises no length


def test_broken_packets_are_skipped_and_counted(tmp_path):
    source = make_clip(tmp_path / "a.mkv", codec="mjpeg", pixel_format="yuvj420p", count=30)
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for packet in (packets[0], packets[10]):
        place = data.index(bytes(packet))
        data[place : place + packet.size] = bytes(packet.size)
    source.write_bytes(data)
    done = restore_video(source, tmp_path / "b.mkv", lambda image, adjust: result(image.clone()))
    assert done.frames == 28
    assert [line for line in done.warnings if "could not be decoded and were skipped: 2" in line] == done.warnings


def test_missing_time_stamps(tmp_path):
    """Raw H.264 has none, and the output has those of its rate."""
    source = make_clip(tmp_path / "a.mp4")
    raw = tmp_path / "a.h264"
    with av.open(str(source)) as given, av.open(str(raw), "w", format="h264") as out:
        stream = out.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    restore_video(raw, tmp_path / "b.mp4", identity)
    assert times_of(tmp_path / "b.mp4") == [Fraction(i, 25) for i in range(12)]


def test_repeated_time_stamps(tmp_path):
    """They increase in the output, by the least that its time base knows."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for i in range(4):
            frame = av.VideoFrame(64, 48, "gray")
            frame.pts = i
            (packet,) = stream.encode(frame)
            packet.pts = packet.dts = (0, 1, 1, 2)[i]
            out.mux(packet)
    restore_video(path, tmp_path / "b.mkv", identity, EncodingOptions("ffv1"))
    times = times_of(tmp_path / "b.mkv")
    assert len(times) == 4 and times == sorted(set(times))
