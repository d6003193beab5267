"""Read pickled arrays and plain values without executing anything in them."""

import io
import pickle
import re
from typing import Any

import numpy as np

# under which NumPy 1 and 2 pickle arrays: protocols 2 to 4, and 5
_ADMITTED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "Array" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "Buffer" for core in ("core", "_core")},
    ("numpy", "ndarray"): "Array",
    ("numpy", "dtype"): "Dtype",
}
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_LARGE, _PEEK = 2**16, 4096


class Array:
    """The pickled description of an array, converted by `numpy`; NumPy's own unpickling code never runs."""

    shape: Any = ()
    order: Any = "C"
    dtype: Any = None
    raw: Any = b""

    def __init__(self, *ignored: object):
        pass

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, fortran, self.raw = state
        self.order = "F" if fortran else "C"

    def numpy(self) -> np.ndarray:
        """Return the array in its own memory; raise ValueError if shape, type and bytes are inconsistent."""
        if not isinstance(self.dtype, Dtype) or not isinstance(self.raw, bytes | bytearray):
            raise ValueError("an array without a type or without bytes")
        return np.frombuffer(self.raw, self.dtype.type).reshape(self.shape, order=self.order).copy()


class Buffer(Array):
    """The same in protocol 5."""

    def __init__(self, raw: bytes, dtype: "Dtype", shape: tuple, order: str):
        self.raw, self.dtype, self.shape, self.order = raw, dtype, shape, order


class Dtype:
    """A numeric type; objects, texts and records are refused."""

    def __init__(self, name: str, *ignored: object):
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            raise Refused(f"an array of {name!r}")
        self.type = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if any(part is not None for part in state[2:5]):  # subarrays, names and fields
            raise Refused("an array of records")
        self.type = self.type.newbyteorder(state[1])


class Refused(ValueError):
    """Something in a pickle that is neither an array of numbers nor a plain value."""


def loads(data: memoryview | bytes, what: str, *, skim: bool = False) -> Any:
    """Return the pickled value: dicts, lists, tuples, strings, bytes, numbers, None, and `Array` for NumPy's arrays.

    With skim, only the middle 4 KiB of values longer than 64 KiB are read (the rest is undefined), which is enough for
    an index. Raises ValueError, which starts with `what`, for damaged pickles and for any global other than those that
    rebuild arrays. Nothing that the pickle names is imported or called.
    """
    try:
        return _Unpickler(_Stream(memoryview(data), skim)).load()
    except Refused as error:
        raise ValueError(
            f"{what} is refused: it contains {error}, but only arrays of numbers and plain values are allowed"
        ) from None
    # the unpickler raises many kinds of errors for damage
    except Exception as error:
        raise ValueError(f"{what} is damaged or not a pickle ({type(error).__name__}: {error})") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return globals()[_ADMITTED[module, name]]
        except KeyError:
            raise Refused(f"{module}.{name}") from None


class _Stream:
    """A file in memory, for the unpickler: long pieces are copied straight into place, or skimmed."""

    def __init__(self, data: memoryview, skim: bool):
        self.data, self.skim, self.at = data, skim, 0

    def read(self, count: int) -> bytes:
        piece = bytes(self.data[self.at : self.at + count])
        self.at += len(piece)
        return piece

    def readline(self) -> bytes:
        piece = io.BytesIO(self.data[self.at : self.at + _PEEK]).readline()
        self.at += len(piece)
        return piece

    def readinto(self, buffer: memoryview) -> int:
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self.data) - self.at)
        first, last = 0, count
        if self.skim and count > _LARGE:
            first = (count - _PEEK) // 2
            last = first + _PEEK
        target[first:last] = self.data[self.at + first : self.at + last]
        self.at += count
        return count


def middle(array: Array) -> bytes:
    """Return the defined part of an array's bytes after `loads` with `skim`."""
    raw = array.raw
    first = (len(raw) - _PEEK) // 2 if len(raw) > _LARGE else 0
    return bytes(raw[first : first + _PEEK]) if first else bytes(raw)
