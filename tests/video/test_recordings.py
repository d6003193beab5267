"""Recordings as cameras and accidents leave them: joined, broken, with time stamps that go back or start late."""

import shutil
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from .support import av, gentle, identity, make_clip, packets_of, result, retimed, times_of

from f2d.video import restoring  # isort: skip
from f2d.video.restoring import restore_video  # isort: skip


def test_joined_transport_streams_go_on(tmp_path):
    """Recordings of a camera, joined as `cat` does, begin anew at the same time stamps; sound stays beside pictures."""
    part = make_clip(tmp_path / "part.ts", count=50, audio=["eng"])
    source = tmp_path / "a.ts"
    source.write_bytes(part.read_bytes() * 3)
    done = restore_video(source, tmp_path / "b.mkv", identity)
    assert (done.frames, done.warnings) == (150, [])
    pictures, sound = times_of(tmp_path / "b.mkv"), [time for time, _ in packets_of(tmp_path / "b.mkv", 1)]
    assert all(b > a for a, b in pairwise(pictures)) and all(b > a for a, b in pairwise(sound))
    assert max(b - a for a, b in pairwise(pictures)) < 0.2 and max(b - a for a, b in pairwise(sound)) < 0.2
    apart = pictures[0] - sound[0]
    for start in (50, 100):
        beside = sound[start * len(sound) // 150]
        assert abs(pictures[start] - beside - apart) < Fraction(1, 500)


def test_joined_recordings_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(restoring, "SEGMENT", 5)
    part = make_clip(tmp_path / "part.ts")
    source = tmp_path / "a.ts"
    source.write_bytes(part.read_bytes() * 2)
    calls = []

    def interrupted(image, adjust):
        calls.append(image)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return result(image.clone())

    with pytest.raises(KeyboardInterrupt):
        restore_video(source, tmp_path / "b.mkv", interrupted)
    assert restore_video(source, tmp_path / "b.mkv", interrupted).kept == 15 and len(calls) == 18 + 9
    restore_video(source, tmp_path / "c.mkv", identity)
    assert times_of(tmp_path / "b.mkv") == times_of(tmp_path / "c.mkv")


@pytest.mark.parametrize("codec, more", [("libx264", {}), ("mpeg4", {"max_b_frames": 2})])
def test_reordered_frames_in_avi(tmp_path, codec, more):
    """AVI knows when packets are decoded, and not when they are shown: one after the other, from the first on."""
    source = make_clip(tmp_path / "a.avi", codec=codec, context=more, picture=gentle)
    seen = []
    restore_video(source, tmp_path / "b.mkv", lambda image, adjust: seen.append(image) or result(image.clone()))
    assert times_of(tmp_path / "b.mkv") == [Fraction(i, 25) for i in range(12)]
    form = av.VideoFormat("yuv420p", 64, 48)
    luma = [gentle(i, form, 64, 48)[0] for i in range(12)]
    for i, image in enumerate(seen):  # in the order of presentation
        grey = 219 * (0.299 * image[0, 0] + 0.587 * image[0, 1] + 0.114 * image[0, 2]).numpy() + 16
        assert np.argmin([np.abs(grey - other).mean() for other in luma]) == i


def test_a_broken_packet_in_avi_does_not_move_the_others(tmp_path):
    source = make_clip(tmp_path / "a.avi", codec="mjpeg", pixel_format="yuvj420p")
    with av.open(str(source)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][4]
    data = bytearray(source.read_bytes())
    place = data.index(bytes(packet))
    data[place : place + packet.size] = bytes(packet.size)
    source.write_bytes(data)
    restore_video(source, tmp_path / "b.mkv", identity)
    assert times_of(tmp_path / "b.mkv") == [Fraction(i, 25) for i in range(12) if i != 4]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_pictures_whose_times_go_back(tmp_path, suffix):
    """One wrong time stamp moves its own frame; times that start again become frames at the mean rate."""
    source = make_clip(tmp_path / "a.flv", codec="flv", audio=["eng"])
    right = [round(1000 * time) for time in times_of(source)]
    for name, change, expected in (
        ("one", lambda i, time: time - 190 if i == 6 else time, right),
        ("again", lambda i, time: time % 240, [*right[:6], *(right[5] + 40 * i for i in range(1, 7))]),
    ):
        broken = retimed(tmp_path / shutil.copy(source, tmp_path / f"{name}.flv"), 9, change)
        done = restore_video(broken, tmp_path / f"{name}.{suffix}", identity)
        moved = 1 if name == "one" else 6
        assert done.warnings == [f"{broken}: frames whose time stamps did not increase and were changed: {moved}"]
        found = [1000 * time for time in times_of(tmp_path / f"{name}.{suffix}")]
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_sound_whose_times_go_back(tmp_path, suffix):
    """It is copied whole, each packet after the last, rather than refused once all frames are restored."""
    source = make_clip(tmp_path / "a.flv", codec="flv", audio=["eng"])
    with av.open(str(source)) as container:
        index = container.streams.audio[0].index
    right = packets_of(source, index)
    for name, change in (
        ("one", lambda i, time: time - 160 if i == 9 else time),
        ("equal", lambda i, time: time // 46 * 46),
        ("again", lambda i, time: time % 240),
    ):
        broken = retimed(tmp_path / shutil.copy(source, tmp_path / f"{name}.flv"), 8, change)
        done = restore_video(broken, tmp_path / f"{name}.{suffix}", identity)
        assert len(done.warnings) == (name != "equal") and all("time stamps go back" in line for line in done.warnings)
        found = packets_of(tmp_path / f"{name}.{suffix}", index)
        assert [data for _, data in found] == [data for _, data in right]
        assert max(abs(a - b) for (a, _), (b, _) in zip(found, right)) <= 0.05


def test_a_late_start_of_no_whole_milliseconds(tmp_path):
    """MP4 stores it in units of the whole file, which are milliseconds unless something else is asked for."""
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    times = [1000 * i for i in range(12)]
    base = Fraction(1, 30000)
    source = make_clip(tmp_path / "a.mp4", times=times, time_base=base, audio=["eng"], container_options=fragments)
    assert (times_of(source)[0] * 1000).denominator > 1
    restore_video(source, tmp_path / "b.mp4", identity)
    assert times_of(tmp_path / "b.mp4") == times_of(source)


def test_sound_that_starts_late_stays_in_step_with_few_frames(tmp_path):
    """MP4 stores its start in units of the whole file, which must not be those of the frames, 1/5 s here."""
    coarse = {"video_track_timescale": "5"}
    clip = make_clip(tmp_path / "a.mp4", rate=5, audio=["eng"], container_options=coarse)
    source = tmp_path / "late.mp4"
    with av.open(str(clip)) as given, av.open(str(source), "w", options=coarse) as out:
        streams = [out.add_stream_from_template(stream) for stream in given.streams]
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                shift = 5000 if packet.stream.type == "audio" else 0
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                out.mux(packet)
    restore_video(source, tmp_path / "b.mp4", identity)
    times = [packets_of(path, 1)[0][0] for path in (source, tmp_path / "b.mp4")]
    assert times[0] > 0.08 and abs(times[0] - times[1]) < 0.0001


def test_interlaced_frames_later_on_are_named(tmp_path):
    parts = [make_clip(tmp_path / f"{i}.ts", options=o) for i, o in enumerate((None, {"x264-params": "tff=1"}))]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    done = restore_video(tmp_path / "a.ts", tmp_path / "b.mkv", identity)
    (warning,) = done.warnings
    assert done.frames == 24 and "has interlaced frames from 0.56 s on" in warning
