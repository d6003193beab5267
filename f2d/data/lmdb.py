"""Read the authors' LMDB, whose values are pickled dicts of LQ and GT, uint8 [H,W,3], and deg_name."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from f2d.data.categories import CLEAR, canonical
from f2d.data.pictures import as_bytes
from f2d.data.pool import Entry, Pool, in_order
from f2d.data.unpickling import Array, loads, middle

FILE = "data.mdb"
_CLEAN_NAMES = (None, "", "clean", "gt", CLEAR)  # names of undegraded images
_opened: dict[str, tuple[int, Any]] = {}  # real path -> (process, environment)


class Record(NamedTuple):
    """One entry of the index; scene is a digest of the ground truth, the same for entries that share it."""

    key: bytes
    category: str
    size: tuple[int, int]
    scene: str


class LmdbPool(Pool):
    """The entries of an LMDB; `category`, if given, replaces their deg_name.

    Pickles are read by `f2d.data.unpickling`, which accepts arrays and plain values and executes nothing. The index
    reads a few pages of each value, and every process opens its own reader. Images with equal middle rows then count as
    one scene, and are held out together; `exact` compares all of their bytes. Raises ValueError for a folder that is
    not an LMDB, an empty one, and a value of another kind, naming its key; ModuleNotFoundError if `lmdb` is not
    installed.
    """

    def __init__(self, path: Path, category: str | None = None, exact: bool = False):
        self.path = path
        self.records = [self._record(key, value, category, exact) for key, value in _values(path)]
        if not self.records:
            raise ValueError(f"{path} is an LMDB without entries")
        super().__init__(Entry(_named(path, r.key), r.scene, r.category) for r in self.records)
        self.categories = in_order({record.category for record in self.records})

    def read(self, entry: int) -> tuple[Tensor | None, Tensor]:
        key, name = self.records[entry].key, self.entries[entry].name
        with environment(self.path).begin(buffers=True) as transaction:
            value = transaction.get(key)
            if value is None:
                raise ValueError(f"{name} no longer exists")
            fields = loads(value, name)
        try:
            return as_bytes(fields["LQ"].numpy()), as_bytes(fields["GT"].numpy())
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is damaged ({error})") from None

    def size(self, entry: int) -> tuple[int, int]:
        return self.records[entry].size

    def _record(self, key: bytes, value: memoryview, category: str | None, exact: bool) -> Record:
        what = _named(self.path, key)
        fields = loads(value, what, skim=not exact)
        if not isinstance(fields, dict) or not {"LQ", "GT"} <= set(fields):
            found = ", ".join(map(str, fields)) if isinstance(fields, dict) else type(fields).__name__
            raise ValueError(f"{what} must be a dict with LQ, GT and deg_name, got {found}")
        lq, gt = fields["LQ"], fields["GT"]
        for entry, array in (("LQ", lq), ("GT", gt)):
            _check_picture(f"{what}: {entry}", array)
        if lq.shape != gt.shape:
            raise ValueError(f"{what}: LQ and GT must have the same size, got {lq.shape} and {gt.shape}")
        name = fields.get("deg_name")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{what}: deg_name must be text such as low_haze, got {name!r}")
        own = CLEAR if name in _CLEAN_NAMES else canonical(name)
        content = bytes(gt.raw) if exact else middle(gt)
        digest = hashlib.sha1(repr((gt.shape, gt.order)).encode() + content).hexdigest()
        return Record(key, category or own, gt.shape[1::-1], digest)


def is_lmdb(path: Path) -> bool:
    """Whether a folder is an LMDB, judging by its files."""
    return (path / FILE).is_file()


def environment(path: Path) -> Any:
    """Return the LMDB of `path`, opened for reading once per process, since it cannot be used across a fork.

    Raises ValueError if it cannot be opened, and ModuleNotFoundError if `lmdb` is not installed.
    """
    try:
        import lmdb
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'reading an LMDB needs lmdb, which is not installed: pip install "f2d[train]"', name="lmdb"
        ) from None
    name = os.path.realpath(path)
    process, opened = _opened.get(name, (None, None))
    if process != os.getpid():
        if opened is not None:
            opened.close()
        try:
            opened = lmdb.open(name, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise ValueError(f"{path} cannot be opened as an LMDB ({error})") from None
        _opened[name] = os.getpid(), opened
    return opened


def _values(path: Path) -> Iterator[tuple[bytes, memoryview]]:
    with environment(path).begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            if bytes(key[:2]) != b"__":  # some writers keep their own tables under __len__ and __keys__
                yield bytes(key), value


def _check_picture(what: str, array: object) -> None:
    if not isinstance(array, Array):
        raise ValueError(f"{what} must be an array, uint8 [H,W,3], got {type(array).__name__}")
    shape, kind = array.shape, getattr(array.dtype, "type", None)
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or len(shape) != 3 or shape[2] != 3 or kind != "uint8" or len(array.raw) != shape[0] * shape[1] * 3:
        raise ValueError(f"{what} must be uint8 [H,W,3], got {kind} {shape}")


def _named(path: Path, key: bytes) -> str:
    return f"{path}, key {key.decode('utf-8', 'backslashreplace')}"
