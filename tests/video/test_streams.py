"""What a restored video has in common with its source: pictures, time stamps, streams, tags."""

import os
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from f2d.video import EncodingOptions, VideoError

from .support import (
    av,
    frames_of,
    gentle,
    identity,
    make_clip,
    packets_of,
    planes_at,
    read_planes,
    result,
    times_of,
    turn,
    write_planes,
)

from f2d.video.frames import layout_of, planes_of  # isort: skip  # after the check for PyAV
from f2d.video.restoring import restore_video  # isort: skip  # after the check for PyAV

LOSSLESS = EncodingOptions("ffv1")
FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv410p", "yuv411p", "yuv440p", "gray"]
PACKED = [
    *(("nv12", "yuv420p"), ("p010le", "yuv420p10le"), ("yuyv422", "yuv422p"), ("yuv420p10be", "yuv420p10le")),
    *(("rgb24", "gbrp"), ("bgr0", "gbrp"), ("rgb48le", "gbrp16le")),
]
DEEP = ["yuv420p10le", "yuv422p10le", "yuv444p12le", "yuv420p16le", "gray10le", "gbrp10le", "gbrp12le"]


@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
@pytest.mark.parametrize("pixel_format", FORMATS + DEEP)
def test_unchanged_frames_are_bit_exact(tmp_path, pixel_format, size):
    """Of every depth and subsampling, with code values over the whole range."""
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", pixel_format=pixel_format, size=size, count=3)
    restore_video(source, tmp_path / "b.mkv", identity, LOSSLESS)
    before, after = frames_of(source), frames_of(tmp_path / "b.mkv")
    assert [frame.format.name for frame in after] == [pixel_format] * 3
    for one, other in zip(before, after):
        for plane, same in zip(read_planes(one), read_planes(other)):
            assert np.array_equal(plane, same)


@pytest.mark.parametrize("packed, planar", PACKED)
def test_packed_formats_become_planar_without_loss(packed, planar):
    frame, form = av.VideoFrame(64, 48, planar), av.VideoFormat(planar, 64, 48)
    expected = planes_at(1, form, 64, 48)
    write_planes(frame, expected)
    layout = layout_of(frame.reformat(format=packed))
    assert layout.pixel_format == planar
    planes = planes_of(frame.reformat(format=packed), layout)
    for plane, values in zip(planes, expected):
        assert np.array_equal(plane[0, 0], values)


def test_rgb_agrees_with_swscale(tmp_path):
    """What the network is given, against FFmpeg's own conversion, within two levels (swscale rounds more often)."""
    tags = {"color_range": 1, "colorspace": 1, "color_trc": 1, "color_primaries": 1}
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", pixel_format="yuv444p", count=2, colour=tags, picture=gentle)
    seen = []
    restore_video(source, tmp_path / "b.mkv", lambda image, adjust: seen.append(image) or result(image), LOSSLESS)
    for frame, image in zip(frames_of(source), seen):
        theirs = frame.to_ndarray(format="rgb24")
        ours = (image[0].permute(1, 2, 0) * 255).numpy()
        assert np.abs(ours - theirs).max() <= 2


def test_a_restoration_arrives(tmp_path):
    """A restoration to one colour, in the code values of that colour."""
    tags = {"color_range": 1, "colorspace": 1}
    dim = make_clip(
        tmp_path / "a.mkv",
        codec="ffv1",
        count=2,
        colour=tags,
        picture=lambda i, form, w, h: [
            np.full((h, w), 120),
            np.full((h // 2, w // 2), 120),
            np.full((h // 2, w // 2), 130),
        ],
    )
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    done = restore_video(dim, tmp_path / "b.mkv", lambda image, adjust: result(red.expand_as(image)), LOSSLESS)
    for frame in frames_of(tmp_path / "b.mkv"):
        assert [int(np.unique(plane)[0]) for plane in read_planes(frame)] == [63, 102, 240]
    assert done.frames == 2 and 100 < done.change < 130


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed in /proc")
@pytest.mark.parametrize("turned", [False, True])
def test_no_thread_becomes_real_time(tmp_path, turned):
    """SVT-AV1 gives itself and its caller SCHED_FIFO where it may, as root may."""
    source, seen = make_clip(tmp_path / "a.mp4"), set()
    if turned:
        turn(source)

    def restore(*arguments, **options):
        seen.update(os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir())
        return identity(*arguments, **options)

    before = os.sched_getscheduler(0)
    restore_video(source, tmp_path / "b.mp4", restore, EncodingOptions("av1"))
    seen.update(os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir())
    assert seen == {before}


VARIABLE = [0, 700, 1300, 2900, 3000, 3900, 5500, 5600, 5700, 7100, 8000, 9000]


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9"])
@pytest.mark.parametrize("times", [None, VARIABLE, [5000 + t for t in VARIABLE]], ids=["constant", "variable", "late"])
def test_time_stamps_are_exact(tmp_path, codec, times):
    """B-frames, variable rates and late starts included; in MP4, whose time base is that of the source."""
    base = None if times is None else Fraction(1, 30000)
    source = make_clip(tmp_path / "a.mp4", times=times, time_base=base, audio=["eng"])
    restore_video(source, tmp_path / "b.mp4", identity, EncodingOptions(codec))
    assert times_of(tmp_path / "b.mp4") == times_of(source)
    assert packets_of(tmp_path / "b.mp4", 1) == packets_of(source, 1)
    with av.open(str(source)) as before, av.open(str(tmp_path / "b.mp4")) as after:
        assert after.start_time == before.start_time
        assert after.streams.video[0].duration == before.streams.video[0].duration
        assert abs(after.duration - before.duration) < 1000  # microseconds: the source's is in whole milliseconds
        assert after.streams.video[0].time_base == before.streams.video[0].time_base
        assert after.streams.video[0].frames == before.streams.video[0].frames


@pytest.mark.parametrize("times", [[5, 6, 9, 40, 41, 300], [20, 21, 24, 60, 61, 330, 331]])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_late_start_before_a_long_pause(tmp_path, suffix, times):
    """Frames that are decoded long before 0 must not move the start."""
    base = Fraction(1, 1000)
    source = make_clip(tmp_path / "a.mkv", count=len(times), times=times, time_base=base, audio=["eng"])
    restore_video(source, tmp_path / f"b.{suffix}", identity)
    assert times_of(tmp_path / f"b.{suffix}") == times_of(source) == [base * time for time in times]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("hold", [100, 400, 40_000])
def test_the_last_frame_is_shown_as_long(tmp_path, suffix, hold):
    """Whatever the encoder's order of frames is, and however often a video is restored; hold: in 1/30000 s."""
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = (
            64,
            48,
            "yuv420p",
            Fraction(1, 30000),
        )
        for index, time in enumerate(VARIABLE):
            frame = av.VideoFrame(64, 48, "yuv420p")
            write_planes(frame, planes_at(index, frame.format, 64, 48))
            frame.pts, frame.time_base = time, Fraction(1, 30000)
            for packet in stream.encode(frame):
                packet.duration = hold
                out.mux(packet)
    expected = (VARIABLE[-1] + hold) / 30000
    for given, target in ((source, tmp_path / f"b.{suffix}"), (tmp_path / f"b.{suffix}", tmp_path / f"c.{suffix}")):
        assert restore_video(given, target, identity).warnings == []
        with av.open(str(target)) as container:
            assert abs(container.duration / av.time_base - expected) <= 0.001


def properties(path):
    """What a player sees of each stream and of the file."""
    with av.open(str(path)) as container:
        streams = [
            (
                stream.type,
                stream.disposition,
                {k: v for k, v in stream.metadata.items() if k in ("language", "title", "handler_name")},
                stream.type == "video"
                and (stream.width, stream.height, stream.average_rate, stream.sample_aspect_ratio),
            )
            for stream in container.streams
        ]
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]) for c in container.chapters()
        ]
        return streams, chapters, container.metadata.get("title")


def test_streams_chapters_and_tags_are_copied(tmp_path):
    source = make_clip(
        tmp_path / "a.mp4",
        audio=["deu", "fra"],
        subtitles="mov_text",
        chapters=True,
        title="A drive",
        context={"sample_aspect_ratio": Fraction(4, 3)},
    )
    done = restore_video(source, tmp_path / "b.mp4", identity)
    assert properties(tmp_path / "b.mp4") == properties(source)
    streams, chapters, title = properties(source)
    assert [kind for kind, *_ in streams].count("audio") == 2 and len(chapters) == 2 and title == "A drive"
    assert [tags["language"] for kind, _, tags, _ in streams if kind == "audio"] == ["deu", "fra"]
    for index in range(1, len(streams)):
        assert packets_of(tmp_path / "b.mp4", index) == packets_of(source, index)
    assert done.warnings == []


def test_attachments_and_cover_pictures_are_copied(tmp_path):
    """A cover is a video stream to FFmpeg, and no video to restore."""
    plain = make_clip(tmp_path / "a.mkv")
    source = tmp_path / "c.mkv"
    with av.open(str(plain)) as given, av.open(str(source), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = out.add_stream_from_template(given.streams.video[0], opaque=True)
        out.add_attachment("font.ttf", "font/ttf", b"letters")
        frame = av.VideoFrame(32, 32, "yuvj420p")
        frame.pts = 0
        out.mux(cover.encode(frame))
        out.mux(cover.encode(None))
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    restore_video(source, tmp_path / "b.mkv", identity)
    with av.open(str(source)) as before, av.open(str(tmp_path / "b.mkv")) as after:
        kinds = [[(stream.type, stream.disposition) for stream in container.streams] for container in (before, after)]
        assert kinds[0] == kinds[1]
        (attached,) = [stream for stream in after.streams if stream.type == "attachment"]
        assert attached.data == b"letters"


def test_a_stream_that_the_container_cannot_hold_is_named(tmp_path):
    source = make_clip(tmp_path / "a.mkv", subtitles="subrip", audio=["eng"])
    done = restore_video(source, tmp_path / "b.mp4", identity)
    assert [
        line for line in done.warnings if "subtitle" in line and "mp4" in line and "not copied" in line
    ] == done.warnings
    assert len(done.warnings) == 1
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_rotation_is_kept_and_the_network_sees_frames_upright(tmp_path, suffix, codec):
    source = turn(make_clip(tmp_path / "a.mp4", picture=gentle))
    seen = []
    restore_video(
        source,
        tmp_path / f"b.{suffix}",
        lambda image, adjust: seen.append(image) or result(image.clone()),
        EncodingOptions(codec, 4),
    )
    before, after = frames_of(source), frames_of(tmp_path / f"b.{suffix}")
    assert [frame.rotation for frame in after] == [frame.rotation for frame in before] == [-90] * 12
    for image, one, other in zip(seen, before, after):
        assert image.shape == (1, 3, 64, 48)
        luma = torch.from_numpy(read_planes(one)[0].astype(np.float32))
        # turned clockwise: the first row becomes the last column
        mean = (0.299 * image[0, 0] + 0.587 * image[0, 1] + 0.114 * image[0, 2]) * 219 + 16
        assert torch.allclose(mean, torch.rot90(luma, -1, dims=(0, 1)), atol=1e-3)
        assert np.abs(read_planes(one)[0].astype(int) - read_planes(other)[0]).mean() < 3


@pytest.mark.parametrize(
    "suffix, codec, pixel_format",
    [("mp4", "h265", "yuv420p10le"), ("mkv", "ffv1", "yuv420p10le"), ("mp4", "h264", "yuv420p")],
)
def test_depth_and_colour_tags_are_kept(tmp_path, suffix, codec, pixel_format):
    """Also those of HDR, with a warning that the network takes it for sRGB."""
    tags = {"color_range": 1, "colorspace": 9, "color_trc": 16, "color_primaries": 9}
    given = "libx265" if "10" in pixel_format else "libx264"
    quiet = {"x265-params": "log-level=none"} if given == "libx265" else None
    source = make_clip(tmp_path / "a.mp4", codec=given, pixel_format=pixel_format, colour=tags, options=quiet)
    done = restore_video(
        source, tmp_path / f"b.{suffix}", identity, EncodingOptions(None if codec == "h265" else codec)
    )
    frame = frames_of(tmp_path / f"b.{suffix}")[0]
    assert frame.format.name == pixel_format and done.codec == codec
    assert (frame.color_range, frame.colorspace, frame.color_trc, frame.color_primaries) == (1, 9, 16, 9)
    assert len(done.warnings) == 1 and "HDR (PQ)" in done.warnings[0] and "sRGB" in done.warnings[0]


@pytest.mark.parametrize(
    "suffix, codec",
    [
        *(("mp4", codec) for codec in ("h264", "h265", "av1", "vp9")),
        *(("mkv", codec) for codec in ("h264", "h265", "av1", "vp9", "ffv1")),
        *(("webm", None), ("mov", None)),
    ],
)
def test_pixels_that_are_not_square_stay_so_or_are_refused(tmp_path, suffix, codec):
    """PyAV cannot set the aspect of a Matroska stream, so there it must be in the codec's own header."""
    aspect = {"sample_aspect_ratio": Fraction(4, 3)}
    source, target = make_clip(tmp_path / "a.mp4", count=2, context=aspect), tmp_path / f"b.{suffix}"
    if suffix in ("mkv", "webm") and codec not in ("h264", "h265"):
        with pytest.raises(VideoError, match=r"a\.mp4: cannot be encoded for .*pixels that are not square"):
            restore_video(source, target, identity, EncodingOptions(codec))
        assert not target.exists()
        source = make_clip(tmp_path / "a.mp4", count=2, context={"sample_aspect_ratio": Fraction(1280, 1281)})
        assert restore_video(source, target, identity, EncodingOptions(codec)).frames == 2  # of a rounded width
        return
    restore_video(source, target, identity, EncodingOptions(codec))
    with av.open(str(target)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_full_range_of_old_formats(tmp_path):
    """yuvj420p of motion JPEG implies full range."""
    source = make_clip(tmp_path / "a.avi", codec="mjpeg", pixel_format="yuvj420p", picture=gentle)
    seen = []
    restore_video(source, tmp_path / "b.mkv", lambda image, adjust: seen.append(image) or result(image.clone()))
    frame, given = frames_of(tmp_path / "b.mkv")[0], frames_of(source)[0]
    assert frame.color_range == 2 and frame.format.name in ("yuv420p", "yuvj420p")
    grey = torch.from_numpy(read_planes(given)[0] / np.float32(255))
    mean = 0.299 * seen[0][0, 0] + 0.587 * seen[0][0, 1] + 0.114 * seen[0][0, 2]
    assert torch.allclose(mean, grey, atol=1e-5)


def test_memory_does_not_grow_with_length(tmp_path):
    """At any time at most two frames that the network was given are alive."""
    source = make_clip(tmp_path / "a.mp4", count=60)
    given, most = [], 0

    def restore(image, adjust):
        nonlocal most
        given.append(weakref.ref(image))
        most = max(most, sum(reference() is not None for reference in given))
        return result(image.clone())

    restore_video(source, tmp_path / "b.mp4", restore)
    assert len(given) == 60 and most <= 2
