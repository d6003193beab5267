"""What a restored video keeps of its source besides frames and sound: rotation, timecode, covers, HDR metadata."""

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from f2d.video import EncodingOptions

from .support import av, frames_of, identity, make_clip, planes_at, write_planes

from f2d.video.frames import layout_of  # isort: skip
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


def hdr_clip(path):
    return make_clip(
        path,
        codec="libx265",
        pixel_format="yuv420p10le",
        count=3,
        options={"x265-params": f"log-level=none:master-display={MASTERING}:max-cll=1000,400"},
        colour={"color_range": 1, "colorspace": 9, "color_trc": 16, "color_primaries": 9},
    )


@pytest.mark.parametrize("codec", ["h264", "ffv1"])
def test_static_hdr_metadata_that_is_not_kept_is_named(tmp_path, codec):
    """These codecs lost it in silence."""
    source = hdr_clip(tmp_path / "a.mp4")
    done = restore_video(source, tmp_path / "b.mkv", identity, EncodingOptions(codec))
    assert f"{source}: static HDR metadata is not kept with {codec}, only with h265 and av1" in done.warnings
    assert not any("CONTENT" in data.type.name for data in frames_of(tmp_path / "b.mkv")[0].side_data)


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_static_hdr_metadata_is_kept(tmp_path, codec):
    source = hdr_clip(tmp_path / "a.mp4")
    restore_video(source, tmp_path / "b.mkv", identity, EncodingOptions(codec))
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


def tagged(path, tags, **options):
    """A copy of a clip with tags of its own."""
    plain = make_clip(path.with_name(f"plain{path.suffix}"), count=2)
    with av.open(str(plain)) as given, av.open(str(path), "w", options=options) as out:
        stream = out.add_stream_from_template(given.streams.video[0], opaque=True)
        out.metadata.update(tags)
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


def tags_of(path):
    with av.open(str(path)) as container:
        return {name.lower(): text for name, text in container.metadata.items()}


@pytest.mark.parametrize("before, after", [("mov", "mov"), ("mov", "mp4"), ("mp4", "mkv"), ("mp4", "mp4")])
def test_tags_of_phones_are_kept(tmp_path, before, after):
    """Place, maker and date lie under names of Apple's or Android's own, which were dropped."""
    tags = {
        "com.apple.quicktime.location.ISO6709": "+48.1372+011.5756/",
        "com.apple.quicktime.creationdate": "2026-05-01T10:00:00+0200",
        "com.apple.quicktime.make": "Apple",
        "com.android.version": "16",
        "title": "A drive",
    }
    source = tagged(tmp_path / f"a.{before}", tags, movflags="use_metadata_tags")
    done = restore_video(source, tmp_path / f"b.{after}", identity)
    kept = tags_of(tmp_path / f"b.{after}")
    assert {name: kept.get(name.lower()) for name in tags} == tags and done.warnings == []


def test_tags_without_a_place_are_named(tmp_path):
    source = tagged(tmp_path / "a.mkv", {"title": "A drive", "SUMMARY_OF_MINE": "rain"})
    (warning,) = restore_video(source, tmp_path / "b.mp4", identity).warnings
    assert warning == f"{source}: tags that mp4 cannot hold are not kept: SUMMARY_OF_MINE"
    assert tags_of(tmp_path / "b.mp4")["title"] == "A drive"
    assert restore_video(source, tmp_path / "b.mkv", identity).warnings == []
    source = tagged(tmp_path / "a.mov", {"title": "Fahrt", "title-deu": "Fahrt"})
    assert {"title", "title-deu"} <= tags_of(source).keys()  # one tag, given twice
    assert restore_video(source, tmp_path / "b.mp4", identity).warnings == []


def test_captions_inside_frames_are_named(tmp_path):
    """They are not kept, and nothing said so: subtitles are, where they are a stream."""
    words = b"\xb5\x00\x31GA94\x03" + bytes([0x42, 0xFF]) + 2 * b"\xfc\x94\x2c" + b"\xff"  # CTA-708, two blocks
    unit = bytes([6, 4, len(words)]) + words + b"\x80"  # SEI: registered user data
    with (
        av.open(str(make_clip(tmp_path / "a.mp4", count=6))) as given,
        av.open(str(tmp_path / "b.mp4"), "w") as out,
    ):
        stream = out.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                with_words = av.Packet(struct.pack(">I", len(unit)) + unit + bytes(packet))
                with_words.stream, with_words.time_base = stream, packet.time_base
                with_words.pts, with_words.dts, with_words.duration = packet.pts, packet.dts, packet.duration
                with_words.is_keyframe = packet.is_keyframe
                out.mux(with_words)
    assert all(any(data.type.name == "A53_CC" for data in frame.side_data) for frame in frames_of(tmp_path / "b.mp4"))
    (warning,) = restore_video(tmp_path / "b.mp4", tmp_path / "c.mkv", identity).warnings
    assert "b.mp4: has closed captions inside its frames from 0.00 s on, which are not kept" in warning
    assert not restore_video(tmp_path / "a.mp4", tmp_path / "d.mkv", identity).warnings
