"""What a folder, a list and a Parquet file stand for."""

import pytest

pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'f2d[ray]'")

import pyarrow.parquet as parquet  # noqa: E402

from f2d.cluster.sources import ParquetImages, Storage, find_items  # noqa: E402


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def places(source, recursive=True):
    return [item.place for item in find_items(str(source), recursive=recursive)[1]]


def test_a_folder_is_its_images(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "notes.md", ".hidden.png", "sub/c.tif", ".git/d.png", "list.txt")
    assert places(tmp_path) == ["a.png", "b.JPG", "sub/c.tif"]
    assert places(tmp_path, recursive=False) == ["a.png", "b.JPG"]


def test_a_list_is_its_paths_below_the_destination(tmp_path):
    touch(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "list.txt").write_text(f"a.png\n\n sub/b.png \n{tmp_path}/sub/../a.png\n")
    storage, items = find_items(str(tmp_path / "list.txt"), recursive=False)
    assert [item.place for item in items][:2] == ["a.png", "sub/b.png"]
    assert ".." not in items[2].place and not items[2].place.startswith("/")
    assert [storage.read(item.path) for item in items[:2]] == [b"a.png", b"sub/b.png"]


@pytest.mark.parametrize("kind", ["columns", "struct"])
def test_a_parquet_file_is_its_rows(tmp_path, kind):
    data, names = [bytes([i] * 9) for i in range(7)], [f"{i}.png" for i in range(7)]
    columns = {"bytes": data, "path": names, "label": list(range(7))}
    if kind == "struct":
        columns = {"image": [{"bytes": b, "path": p} for b, p in zip(data, names)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet", row_group_size=3)
    for source in (tmp_path, tmp_path / "x.parquet"):
        storage, items = find_items(str(source), recursive=False)
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
        find_items(str(tmp_path / "twice.txt"), recursive=False)
    with pytest.raises(ValueError, match="nowhere://a: no file system"):
        Storage.at("nowhere://a")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    storage = Storage.at(str(tmp_path / "new"))
    storage.write(storage.path("a/b.png"), b"first")
    storage.write(storage.path("a/b.png"), b"second")
    assert storage.read(storage.path("a/b.png")) == b"second"
    (tmp_path / "new" / "a" / "c.png").mkdir()
    with pytest.raises(OSError):
        storage.write(storage.path("a/c.png"), b"third")
    assert {path.name for path in (tmp_path / "new" / "a").iterdir()} == {"b.png", "c.png"}
