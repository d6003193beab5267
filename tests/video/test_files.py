"""Inputs that are refused or recognised by their bytes; outputs that fail, are rerun, or replace their input."""

import errno
import resource

import pytest
from PIL import Image

from f2d.replacing import WriteError
from f2d.video import EncodingOptions, VideoError, is_video

from .support import identity, make_clip, packets_of, result, times_of

from f2d.video.restoring import restore_video  # isort: skip


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

    whole, plain = tmp_path / "whole.mp4", EncodingOptions(smoothing=0)  # whose state would be larger than this video
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
