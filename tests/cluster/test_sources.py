"""What a folder, a list and a Parquet file stand for."""

import os
import re
import subprocess
import sys

import pytest

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'f2d[ray]'")

import pyarrow.parquet as parquet  # noqa: E402

from f2d.cluster.sources import HERE, ParquetImages, Storage, check_distinct, find_items  # noqa: E402


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def places(source, recursive=True):
    return [item.place for item in find_items(str(source), recursive=recursive).items]


def test_a_folder_is_its_images(tmp_path):
    touch(tmp_path, "film.mp4", "b.JPG", "a.png", "notes.md", ".hidden.png", "sub/c.tif", ".git/d.png", "list.txt")
    assert places(tmp_path) == ["a.png", "b.JPG", "sub/c.tif"]
    assert places(tmp_path, recursive=False) == ["a.png", "b.JPG"]
    assert find_items(str(tmp_path), recursive=True).others == {".md": 1, ".mp4": 1, ".txt": 1}


def test_a_list_is_its_paths_below_the_destination(tmp_path):
    touch(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "list.txt").write_text(f"a.png\n\n sub/b.png \n{tmp_path}/sub/../a.png\n")
    storage, items = Storage.at(str(tmp_path)), find_items(str(tmp_path / "list.txt"), recursive=False).items
    assert [item.place for item in items] == ["a.png", "sub/b.png", f"{tmp_path}/a.png"[1:]]
    assert [storage.read(item.path) for item in items[:2]] == [b"a.png", b"sub/b.png"]


@pytest.mark.parametrize("kind", ["columns", "struct"])
def test_a_parquet_file_is_its_rows(tmp_path, kind):
    data, names = [bytes([i] * 9) for i in range(7)], [f"{i}.png" for i in range(7)]
    columns = {"bytes": data, "path": names, "label": list(range(7))}
    if kind == "struct":
        columns = {"image": [{"bytes": b, "path": p} for b, p in zip(data, names)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet", row_group_size=3)
    for source in (tmp_path, tmp_path / "x.parquet"):
        storage, items = Storage.at(str(source)), find_items(str(source), recursive=False).items
        assert [item.place for item in items] == names
        images = ParquetImages(storage, items[0].path)
        assert [images.bytes(item.row) for item in reversed(items)] == data[::-1]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"contains no images.*--recursive"):
        find_items(str(tmp_path), recursive=False)
    (tmp_path / "list.txt").write_text("a/x.png\nb/../a/x.png\n")
    parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"binary column \(bytes, image.*got text"):
        find_items(str(tmp_path / "x.parquet"), recursive=False)
    (tmp_path / "twice.txt").write_text("x.png\n./x.png\n")
    with pytest.raises(ValueError, match=r"x.png: would be written by .* and by"):
        check_distinct(find_items(str(tmp_path / "twice.txt"), recursive=False).items)
    with pytest.raises(ValueError, match="no such file or folder"):
        find_items(str(tmp_path / "nowhere"), recursive=False)
    (tmp_path / "other.lst").write_text("a.png\ns3://bucket/b.png\n")
    with pytest.raises(ValueError, match=r"other.lst, line 2: must be a path"):
        find_items(str(tmp_path / "other.lst"), recursive=False)
    (tmp_path / "binary.lst").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary.lst: must be a text file"):
        find_items(str(tmp_path / "binary.lst"), recursive=False)
    parquet.write_table(pyarrow.table({"bytes": [b"a", b"b"], "path": ["a.png", None]}), tmp_path / "null.parquet")
    with pytest.raises(ValueError, match=r"row 1 of .*null.parquet: must name an image"):
        find_items(str(tmp_path / "null.parquet"), recursive=False)
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad.parquet: is not a readable Parquet file"):
        find_items(str(tmp_path / "bad.parquet"), recursive=False)
    for uri, why in (
        ("nowhere://a", "Unrecognized filesystem type.*nowhere"),
        ("s3://a/b?endpoint=c", "Unexpected query parameter in S3 URI: 'endpoint'"),
    ):
        with pytest.raises(ValueError, match=f"{re.escape(uri)}: cannot be opened .*{why}"):
            Storage.at(uri)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        Storage.at(str(tmp_path / "file" / "out")).prepare()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, scheme):
    storage = Storage.at(f"{scheme}{tmp_path / 'new'}")
    storage.write(storage.path("a/b.png"), b"first")
    storage.write(storage.path("a/b.png"), b"second")
    assert storage.read(storage.path("a/b.png")) == b"second"
    (tmp_path / "new" / "a" / "c.png").mkdir()
    with pytest.raises(OSError):
        storage.write(storage.path("a/c.png"), b"third")
    assert {path.name for path in (tmp_path / "new" / "a").iterdir()} == {"b.png", "c.png"}


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    """Of this machine at once, of others when it is old; never a file of the user's."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    elsewhere = "0" * 12 if HERE != "0" * 12 else "1" * 12
    mine, living, theirs, old = (
        tmp_path / "a" / f".f2d-{machine}.{process}.{'0' * 31}{i}.part"
        for i, (machine, process) in enumerate(
            ((HERE, ended.pid), (HERE, os.getpid()), (elsewhere, ended.pid), (elsewhere, 7))
        )
    )
    others = [tmp_path / name for name in (".f2d-1.part", f"x{mine.name}", "a/.hidden.part", "a/b.png")]
    for path in (mine, living, theirs, old, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in (old, *others):
        os.utime(path, (1, 1))
    Storage.at(str(tmp_path)).remove_leftovers()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {living, theirs, *others}
    Storage.at(str(tmp_path / "nowhere")).remove_leftovers()
