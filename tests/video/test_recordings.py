"""Files as cameras, editors and accidents leave them: joined recordings, mirrored frames, covers, timecode, HDR."""

import errno
import io
import resource
import shutil
import struct
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.replacing import WriteError
from f2d.video import VideoError, Wanted, is_video

from .support import (
    av,
    frames_of,
    gentle,
    identity,
    make_clip,
    packets_of,
    planes_at,
    result,
    retimed,
    times_of,
    write_planes,
)

from f2d.video.frames import layout_of  # isort: skip
from f2d.video import restoring  # isort: skip
from f2d.video.restoring import restore_video  # isort: skip

ONE = 1 << 16
MATRICES = {  # a, b, c, d of the display matrix -> the letter F as it is shown
    "none": (ONE, 0, 0, ONE),
    "half turn": (-ONE, 0, 0, -ONE),
    "quarter turn clockwise": (0, ONE, -ONE, 0),
    "quarter turn counterclockwise": (0, -ONE, ONE, 0),
    "left to right": (-ONE, 0, 0, ONE),
    "top to bottom": (ONE, 0, 0, -ONE),
    "transposed": (0, ONE, ONE, 0),
    "transposed the other way": (0, -ONE, -ONE, 0),
}


@pytest.mark.parametrize("kind", MATRICES)
def test_frames_are_upright_for_every_display_matrix(tmp_path, kind):
    """The pixel (x, y) is shown at (a x + c y, b x + d y), and what is stored comes back where it was."""
    a, b, c, d = MATRICES[kind]
    source = make_clip(tmp_path / "a.mp4", count=1, size=(64, 48))
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    source.write_bytes(data)
    layout = layout_of(frames_of(source)[0])
    stored = torch.arange(48 * 64, dtype=torch.float32).reshape(48, 64)
    shown = layout.upright(stored)
    y, x = np.mgrid[0:48, 0:64]
    to_x, to_y = (a * x + c * y) // ONE, (b * x + d * y) // ONE
    expected = np.zeros(shown.shape, np.float32)
    expected[to_y - to_y.min(), to_x - to_x.min()] = stored.numpy()
    assert np.array_equal(shown.numpy(), expected)
    assert torch.equal(layout.stored(shown), stored)
    restore_video(source, tmp_path / "b.mp4", identity)
    before, after = frames_of(source)[0], frames_of(tmp_path / "b.mp4")[0]
    assert [bytes(s) for s in after.side_data if s.type.name == "DISPLAYMATRIX"] == [
        bytes(s) for s in before.side_data if s.type.name == "DISPLAYMATRIX"
    ]


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
        assert done.warnings == [f"{broken}: frames whose time stamps do not increase and were changed: {moved}"]
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


def test_a_name_that_looks_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "a.mp4").rename(tmp_path / "part 1: rain.mp4")
    (tmp_path / "b:c").mkdir()
    for target in ("http: clear.mp4", "b:c/clear.mp4"):
        assert restore_video(type(tmp_path)("part 1: rain.mp4"), type(tmp_path)(target), identity).frames == 12


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:0.5,\nprivate.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile private.ts\n", PLAYLIST])
@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.m3u8"])
def test_files_that_name_other_files_are_not_followed(tmp_path, text, name):
    make_clip(tmp_path / "private.ts")
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match="cannot be read as a video"):
        restore_video(tmp_path / name, tmp_path / "b.mp4", identity)


def test_a_photograph_named_as_a_video(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.mp4", "PNG")
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be read as a video \(it is something else\)"):
        restore_video(tmp_path / "a.mp4", tmp_path / "b.mp4", identity)


def test_transparency_beside_the_pictures(tmp_path):
    """VP9 has it in packets of its own, which decoders leave out."""
    source = make_clip(tmp_path / "a.webm", codec="libvpx-vp9", pixel_format="yuva420p", options={"auto-alt-ref": "0"})
    with pytest.raises(VideoError, match="transparency is not supported"):
        restore_video(source, tmp_path / "b.webm", identity)


def test_interlaced_frames_later_on_are_named(tmp_path):
    parts = [make_clip(tmp_path / f"{i}.ts", options=o) for i, o in enumerate((None, {"x264-params": "tff=1"}))]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    done = restore_video(tmp_path / "a.ts", tmp_path / "b.mkv", identity)
    (warning,) = done.warnings
    assert done.frames == 24 and "has interlaced frames from 0.56 s on" in warning


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv"])
def test_timecode_is_kept(tmp_path, suffix):
    source = tmp_path / "a.mov"
    with av.open(str(source), "w") as out:
        out.metadata["timecode"] = "01:02:03:04"
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(3):
            frame = av.VideoFrame(64, 48, "yuv420p")
            write_planes(frame, planes_at(i, frame.format, 64, 48))
            frame.pts = i
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    done = restore_video(source, tmp_path / f"b.{suffix}", identity)
    with av.open(str(tmp_path / f"b.{suffix}")) as container:
        tags = {name.lower(): text for name, text in container.streams.video[0].metadata.items()}
        assert tags["timecode"] == "01:02:03:04" and done.warnings == []
        assert len(container.streams) == (1 if suffix == "mkv" else 2)


def with_cover(path, plain):
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(picture, "JPEG")
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        if path.suffix == ".mkv":
            out.add_attachment("front.jpg", "image/jpeg", picture.getvalue())
        else:
            cover = out.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
        for packet in given.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
        if path.suffix != ".mkv":
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 1)
            out.mux(packet)
    return path, picture.getvalue()


@pytest.mark.parametrize("before, after", [("mkv", "mkv"), ("mp4", "mkv"), ("mkv", "mp4"), ("mp4", "mp4")])
def test_covers_stay_covers(tmp_path, before, after):
    """In every container the picture is one that is attached, and not a second video."""
    plain = make_clip(tmp_path / f"plain.{before}", audio=["eng"])
    source, picture = with_cover(tmp_path / f"a.{before}", plain)
    done = restore_video(source, tmp_path / f"b.{after}", identity)
    assert (done.frames, done.width, done.warnings) == (12, 64, [])
    with av.open(str(tmp_path / f"b.{after}")) as container:
        (cover,) = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        assert next(bytes(packet) for packet in container.demux(cover) if packet.size) == picture
        assert len(container.streams.video) == 2
        if (before, after) == ("mkv", "mkv"):
            assert cover.metadata["filename"] == "front.jpg"


MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_static_hdr_metadata_is_kept(tmp_path, codec):
    source = make_clip(
        tmp_path / "a.mp4",
        codec="libx265",
        pixel_format="yuv420p10le",
        count=3,
        options={"x265-params": f"log-level=none:master-display={MASTERING}:max-cll=1000,400"},
        colour={"color_range": 1, "colorspace": 9, "color_trc": 16, "color_primaries": 9},
    )
    restore_video(source, tmp_path / "b.mkv", identity, Wanted(codec))
    (before, after) = (
        {data.type.name: bytes(data) for data in frames_of(path)[0].side_data} for path in (source, tmp_path / "b.mkv")
    )
    assert after["CONTENT_LIGHT_LEVEL"] == before["CONTENT_LIGHT_LEVEL"] == struct.pack("=2I", 1000, 400)
    values = []
    for data in (before, after):
        numbers = struct.unpack("=22i", data["MASTERING_DISPLAY_METADATA"][:88])
        values.append([a / b for a, b in zip(numbers[:20:2], numbers[1:20:2])])
    assert values[0][-1] == 1000 and values[0][0] == 0.68
    assert values[1] == pytest.approx(values[0], abs=3e-5)  # AV1 has steps of 2^-16, and of 2^-14 for the least


def test_a_file_without_a_suffix_is_known_by_its_first_bytes(tmp_path):
    for suffix in ("mp4", "mov", "mkv", "webm", "avi"):
        codec = "libvpx-vp9" if suffix == "webm" else "libx264"
        assert is_video(make_clip(tmp_path / f"a.{suffix}", count=1, codec=codec).rename(tmp_path / f"film {suffix}"))
    for suffix in ("png", "jpeg", "avif", "webp"):
        Image.new("RGB", (9, 9)).save(tmp_path / suffix, suffix.upper())
        assert not is_video(tmp_path / suffix)
    assert not is_video(tmp_path / "nowhere") and not is_video(tmp_path)


@pytest.mark.parametrize("while_written", ["a segment", "the file"])
def test_a_full_disk_is_told_of_the_output(tmp_path, while_written):
    """The segments that are complete stay for the next run."""
    source, calls = make_clip(tmp_path / "a.mp4", audio=["eng"], count=60), []

    def restore(image, adjust):
        calls.append(1)
        return result(image.clone())

    whole, plain = tmp_path / "whole.mp4", Wanted(smoothing=0)  # whose state would be larger than this video
    restore_video(source, whole, identity, plain)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 500 if while_written == "a segment" else whole.stat().st_size - 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(WriteError) as caught:
            restore_video(source, tmp_path / "b.mp4", restore, plain)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == f"{tmp_path / 'b.mp4'}: cannot be written (File too large)"
    assert not (tmp_path / "b.mp4").exists() and not list(tmp_path.glob("*.part"))
    made = len(calls)
    restore_video(source, tmp_path / "b.mp4", restore, plain)
    assert len(calls) - made == (60 if while_written == "a segment" else 0)


def test_a_folder_in_the_place_of_the_output(tmp_path):
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(WriteError) as caught:
        restore_video(make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", lambda *_, **__: pytest.fail("work was done"))
    assert caught.value.errno == errno.EISDIR
    with pytest.raises(WriteError, match=r"no/b\.mp4: cannot be written"):
        restore_video(tmp_path / "a.mp4", tmp_path / "no" / "b.mp4", identity)


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    """As that of the weights, which are loaded for the first frame."""

    def restore(image, adjust):
        raise FileNotFoundError(errno.ENOENT, "No such file", "weights")

    with pytest.raises(FileNotFoundError) as caught:
        restore_video(make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", restore)
    assert caught.value.filename == "weights" and type(caught.value) is FileNotFoundError


def test_an_output_onto_its_input(tmp_path):
    source = make_clip(tmp_path / "a.mp4", audio=["eng"])
    sound, times = packets_of(source, 1), times_of(source)
    restore_video(source, source, identity)
    assert (packets_of(source, 1), times_of(source)) == (sound, times)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
