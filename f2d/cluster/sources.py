"""Find the images that a folder, a list of files or a Parquet file stands for, on any file system."""

import os
import posixpath
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs
import pyarrow.parquet

from f2d.images import IMAGE_SUFFIXES
from f2d.replacing import ABANDONED, has_ended

LISTS, PARQUET = (".txt", ".lst"), ".parquet"
OBJECT_STORES = ("s3", "gcs", "abfs")
HERE = f"{uuid.getnode():012x}"  # this machine
PART = re.compile(r"\.f2d-(?P<machine>[0-9a-f]{12})\.(?P<process>\d+)\.[0-9a-f]{32}\.part")
NAMES, BYTES = ("path", "file_name", "filename", "name", "key"), ("bytes", "image", "content", "data")


class Storage(NamedTuple):
    """A file system and a folder in it: "photos", "s3://bucket/photos", "gs://bucket/photos", or any fsspec scheme."""

    filesystem: pyarrow.fs.FileSystem
    folder: str

    @classmethod
    def at(cls, uri: str) -> "Storage":
        """Open a path or URI; raise ValueError for one that neither pyarrow nor an installed fsspec package can open.

        An S3 endpoint of its own is given as ``s3://bucket/folder?endpoint_override=http://host:port``.
        """
        if "://" not in uri:
            return cls(pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute()))
        try:
            return cls(*pyarrow.fs.FileSystem.from_uri(uri))
        except OSError as error:  # hdfs:// without Hadoop: the other lines are all places where it is not
            raise ValueError(f"{uri}: cannot be opened ({str(error).splitlines()[0]})") from None
        except pyarrow.lib.ArrowInvalid as invalid:
            try:
                import fsspec

                scheme, _, folder = uri.partition("://")
                return cls(pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec.filesystem(scheme))), folder)
            except (ImportError, ValueError) as error:
                raise ValueError(f"{uri}: cannot be opened ({invalid}, {error})") from None

    def prepare(self) -> None:
        """Create the folder; raise ValueError for a bucket that does not exist, OSError if it is not a folder."""
        if self.filesystem.type_name not in OBJECT_STORES:
            self.filesystem.create_dir(self.folder, recursive=True)
            return
        bucket = self.folder.split("/")[0]
        if not bucket or self.filesystem.get_file_info(bucket).type is pyarrow.fs.FileType.NotFound:
            raise ValueError(f"{self.folder}: there is no bucket named {bucket!r}")

    def path(self, place: str) -> str:
        """Return the path of `place` below the folder."""
        return posixpath.join(self.folder, place)

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        with self.filesystem.open_input_stream(path) as file:
            return file.read()

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file: a reader sees all of it or none, as objects appear when complete and files are moved."""
        if self.filesystem.type_name in OBJECT_STORES:
            with self.filesystem.open_output_stream(path) as file:
                file.write(data)
            return
        folder, _ = posixpath.split(path)
        self.filesystem.create_dir(folder, recursive=True)
        part = posixpath.join(folder, f".f2d-{HERE}.{os.getpid()}.{uuid.uuid4().hex}.part")
        try:
            with self.filesystem.open_output_stream(part) as file:
                file.write(data)
            self.filesystem.move(part, path)
        except BaseException:
            if self.filesystem.get_file_info(part).is_file:
                self.filesystem.delete_file(part)
            raise

    def remove_leftovers(self) -> None:
        """Remove temporary files of `write` below the folder that killed processes left: those of processes of this
        machine that have ended, and old ones of any machine."""
        if self.filesystem.type_name in OBJECT_STORES:
            return
        selector = pyarrow.fs.FileSelector(self.folder, allow_not_found=True, recursive=True)
        for info in self.filesystem.get_file_info(selector):
            part = PART.fullmatch(info.base_name)
            if part is None or not info.is_file:
                continue
            ended = part["machine"] == HERE and has_ended(int(part["process"]))
            if ended or _is_old(info):
                with suppress(OSError):  # gone meanwhile, or not to be deleted
                    self.filesystem.delete_file(info.path)

    def files(self, *, recursive: bool) -> Iterator[str]:
        """Yield the paths of the files below the folder, none if it does not exist; hidden ones are skipped."""
        selector = pyarrow.fs.FileSelector(self.folder, allow_not_found=True, recursive=recursive)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file and not any(part.startswith(".") for part in self.below(info.path).split("/")):
                yield info.path

    def below(self, path: str) -> str:
        """Return a path relative to the folder."""
        return posixpath.relpath(path, self.folder)


class Found(NamedTuple):
    """The images of a source, and the number of its other files by suffix."""

    items: list["Item"]
    others: Counter[str]


class Item(NamedTuple):
    """One image: the path of its file (of the Parquet file, with its row) and its place below the destination."""

    path: str
    row: int  # -1 for a file that is the image itself
    place: str

    @property
    def source(self) -> str:
        """The path for messages, with the row of a Parquet file."""
        return self.path if self.row < 0 else f"row {self.row} of {self.path}"


def find_items(source: str, *, recursive: bool) -> Found:
    """Return the images of `source` in the order of their paths.

    A folder stands for its images (in subfolders too if `recursive`); a .txt or .lst file for the paths in it, one a
    line, relative to its folder; a .parquet file, or the .parquet files of a folder without images, for their rows,
    with a binary column bytes, image, content or data (or a struct of bytes and path, as in Hugging Face datasets) and
    a column path, file_name, filename, name or key. Raises ValueError for a source that does not exist or has no
    images, and for a name that is empty.
    """
    storage = Storage.at(source)
    info = storage.filesystem.get_file_info(storage.folder)
    if info.type is pyarrow.fs.FileType.NotFound:
        raise ValueError(f"{source}: no such file or folder (Ray does not support patterns)")
    others: Counter[str] = Counter()
    if info.is_file:
        storage = storage._replace(folder=posixpath.dirname(info.path))
        files = [info.path]
    else:
        files = sorted(storage.files(recursive=recursive))
    pictures = [path for path in files if _suffix(path) in IMAGE_SUFFIXES]
    if info.is_file and _suffix(info.path) in LISTS:
        items = _listed(storage, info.path)
    elif pictures:
        items = [Item(path, -1, storage.below(path)) for path in pictures]
        others = Counter(_suffix(path) for path in files if _suffix(path) not in IMAGE_SUFFIXES)
    else:
        tables = [path for path in files if _suffix(path) == PARQUET]
        items = [item for path in tables for item in _rows(storage, path)]
    if not items:
        deeper = "" if recursive else " (--recursive also searches its subfolders)"
        raise ValueError(f"{source}: contains no images, no list of images and no Parquet file of images{deeper}")
    return Found(items, others)


def check_distinct(items: list[Item]) -> None:
    """Raise ValueError if two images would be written to one place."""
    places: dict[str, Item] = {}
    for item in items:
        other = places.setdefault(item.place, item)
        if other is not item:
            raise ValueError(f"{item.place}: would be written by {other.source} and by {item.source}")


class ParquetImages:
    """The encoded images of one Parquet file, read a row group at a time."""

    def __init__(self, storage: Storage, path: str):
        try:
            self._file = pyarrow.parquet.ParquetFile(storage.filesystem.open_input_file(path))
        except pyarrow.lib.ArrowInvalid as invalid:
            raise ValueError(f"{path}: is not a readable Parquet file ({invalid})") from None
        self._names, self._image = _columns(self._file.schema_arrow, path)
        self._starts = [0]
        for group in range(self._file.num_row_groups):
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)
        self._group = -1
        self._values: Any = []

    def names(self) -> list[str]:
        """Return the name of every row."""
        if self._names is not None:
            return [str(name or "") for name in self._file.read([self._names])[0].to_pylist()]
        return [(value or {}).get("path") or "" for value in self._file.read([f"{self._image}.path"])[0].to_pylist()]

    def bytes(self, row: int) -> bytes:
        """Return the encoded image of a row."""
        group = next(i for i, end in enumerate(self._starts[1:]) if row < end)
        if group != self._group:
            self._group, self._values = group, self._file.read_row_group(group, [self._image])[0]
        value: Any = self._values[row - self._starts[group]].as_py()
        return value["bytes"] if isinstance(value, dict) else value


def _listed(storage: Storage, path: str) -> list[Item]:
    try:
        lines = storage.read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: must be a text file with one path per line, in UTF-8") from None
    items = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        if "://" in line:
            raise ValueError(f"{path}, line {number}: must be a path in the same storage as the list, got {line}")
        if line:
            items.append(Item(storage.path(line), -1, _place(line, f"line {number} of {path}")))
    return items


def _rows(storage: Storage, path: str) -> list[Item]:
    names = ParquetImages(storage, path).names()
    return [Item(path, row, _place(name, f"row {row} of {path}")) for row, name in enumerate(names)]


def _columns(schema: pyarrow.Schema, path: str) -> tuple[str | None, str]:
    """Return the column of names (None: inside the images' structs) and the column of encoded images."""
    image = next((name for name in BYTES if name in schema.names and _holds_images(schema.field(name).type)), None)
    names = next((name for name in NAMES if name in schema.names), None)
    struct = image is not None and pyarrow.types.is_struct(schema.field(image).type)
    if image is None or (names is None and not struct):
        raise ValueError(
            f"{path}: must have a binary column ({', '.join(BYTES)}) and a column of names ({', '.join(NAMES)}), "
            f"got {', '.join(schema.names)}"
        )
    return names, image


def _holds_images(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _place(name: str, where: str) -> str:
    """Return a name as a place below the destination: no root, and nothing above it. where: for the error."""
    place = posixpath.normpath(posixpath.join("/", name)).lstrip("/")
    if not place:
        raise ValueError(f"{where}: must name an image, got {name!r}")
    return place


def _is_old(info: pyarrow.fs.FileInfo) -> bool:
    return info.mtime is not None and time.time() - info.mtime.timestamp() > ABANDONED


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()
