"""Find the images that a folder, a list of files or a Parquet file stands for, on any file system."""

import posixpath
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs
import pyarrow.parquet

from f2d.images import IMAGE_SUFFIXES

LISTS, PARQUET = (".txt", ".lst"), ".parquet"
NAMES, BYTES = ("path", "file_name", "filename", "name", "key"), ("bytes", "image", "content", "data")


class Storage(NamedTuple):
    """A file system and a folder in it: "photos", "s3://bucket/photos", "gs://bucket/photos", or any fsspec scheme."""

    filesystem: pyarrow.fs.FileSystem
    folder: str

    @classmethod
    def at(cls, uri: str) -> "Storage":
        """Open a path or URI; raise ValueError for a scheme that neither pyarrow nor an installed fsspec package knows.

        An S3 endpoint of its own is given as ``s3://bucket/folder?endpoint_override=http://host:port``.
        """
        if "://" not in uri:
            return cls(pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute()))
        try:
            return cls(*pyarrow.fs.FileSystem.from_uri(uri))
        except pyarrow.lib.ArrowInvalid as invalid:
            try:
                import fsspec

                scheme, _, folder = uri.partition("://")
                return cls(pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec.filesystem(scheme))), folder)
            except (ImportError, ValueError):
                raise ValueError(f"{uri}: no file system of this scheme is installed ({invalid})") from None

    def path(self, place: str) -> str:
        """Return the path of `place` below the folder."""
        return posixpath.join(self.folder, place)

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        with self.filesystem.open_input_stream(path) as file:
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file: a reader sees all of it or none, as objects appear when complete and files are moved."""
        if not isinstance(self.filesystem, pyarrow.fs.LocalFileSystem):
            with self.filesystem.open_output_stream(path) as file:
                file.write(data)
            return
        folder, _ = posixpath.split(path)
        self.filesystem.create_dir(folder, recursive=True)
        part = posixpath.join(folder, f".f2d-{uuid.uuid4().hex}.part")
        try:
            with self.filesystem.open_output_stream(part) as file:
                file.write(data)
            self.filesystem.move(part, path)
        except BaseException:
            if self.filesystem.get_file_info(part).is_file:
                self.filesystem.delete_file(part)
            raise

    def files(self, *, recursive: bool) -> Iterator[str]:
        """Yield the paths of the files below the folder, none if it does not exist; hidden ones are skipped."""
        selector = pyarrow.fs.FileSelector(self.folder, allow_not_found=True, recursive=recursive)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file and not any(part.startswith(".") for part in self.below(info.path).split("/")):
                yield info.path

    def below(self, path: str) -> str:
        """Return a path relative to the folder."""
        return posixpath.relpath(path, self.folder)


class Item(NamedTuple):
    """One image: the path of its file (of the Parquet file, with its row) and its place below the destination."""

    path: str
    row: int  # -1 for a file that is the image itself
    place: str


def find_items(source: str, *, recursive: bool) -> tuple[Storage, list[Item]]:
    """Return the storage that `source` lies in, and its images in the order of their paths.

    A folder stands for its images (in subfolders too if `recursive`); a .txt or .lst file for the paths in it, one a
    line, relative to its folder; a .parquet file, or the .parquet files of a folder without images, for their rows,
    with a binary column bytes, image, content or data (or a struct of bytes and path, as in Hugging Face data sets) and
    a column path, file_name, filename, name or key. Raises ValueError for a source without images, and for two images
    with the same place.
    """
    storage = Storage.at(source)
    info = storage.filesystem.get_file_info(storage.folder)
    if info.is_file:
        storage = storage._replace(folder=posixpath.dirname(info.path))
        files = [info.path]
    else:
        files = sorted(storage.files(recursive=recursive))
    pictures = [path for path in files if _suffix(path) in IMAGE_SUFFIXES]
    if info.is_file and _suffix(info.path) in LISTS:
        lines = storage.read(info.path).decode().splitlines()
        items = [Item(storage.path(line.strip()), -1, _place(line.strip())) for line in lines if line.strip()]
    elif pictures:
        items = [Item(path, -1, storage.below(path)) for path in pictures]
    else:
        tables = [path for path in files if _suffix(path) == PARQUET]
        items = [item for path in tables for item in _rows(storage, path)]
    if not items:
        deeper = "" if recursive else " (--recursive also searches its subfolders)"
        raise ValueError(f"{source}: contains no images, list of images or Parquet file of images{deeper}")
    places: dict[str, Item] = {}
    for item in items:
        other = places.setdefault(item.place, item)
        if other is not item:
            raise ValueError(f"{item.place}: would be written by {other.path} and by {item.path}")
    return storage, items


class ParquetImages:
    """The encoded images of one Parquet file, read a row group at a time."""

    def __init__(self, storage: Storage, path: str):
        self._file = pyarrow.parquet.ParquetFile(storage.filesystem.open_input_file(path))
        self._names, self._image = _columns(self._file.schema_arrow, path)
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._group = -1
        self._values: Any = []

    def names(self) -> list[str]:
        """Return the name of every row."""
        if self._names is not None:
            return [str(name) for name in self._file.read([self._names])[0].to_pylist()]
        return [str(value["path"]) for value in self._file.read([f"{self._image}.path"])[0].to_pylist()]

    def bytes(self, row: int) -> bytes:
        """Return the encoded image of a row."""
        group = next(i for i, end in enumerate(self._starts[1:]) if row < end)
        if group != self._group:
            self._group, self._values = group, self._file.read_row_group(group, [self._image])[0]
        value: Any = self._values[row - self._starts[group]].as_py()
        return value["bytes"] if isinstance(value, dict) else value


def _rows(storage: Storage, path: str) -> list[Item]:
    return [Item(path, row, _place(name)) for row, name in enumerate(ParquetImages(storage, path).names())]


def _columns(schema: pyarrow.Schema, path: str) -> tuple[str | None, str]:
    """Return the column of names (None: inside the images' structs) and the column of encoded images."""
    image = next((name for name in BYTES if name in schema.names), None)
    names = next((name for name in NAMES if name in schema.names), None)
    kind = None if image is None else schema.field(image).type
    binary = kind is not None and (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))
    struct = kind is not None and pyarrow.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
    if image is None or not (binary or struct) or (names is None and not struct):
        raise ValueError(
            f"{path}: must have a binary column ({', '.join(BYTES)}) and a column of names ({', '.join(NAMES)}), "
            f"got {', '.join(schema.names)}"
        )
    return names, image


def _place(name: str) -> str:
    """Return a name as a place below the destination: no root, no scheme, nothing above it."""
    parts = name.rpartition("://")[2].split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()
