"""Global memory as a kernel sees it: allocations at the addresses of the real tensors, each byte with its history.

The bytes of all allocations lie in one array, so that one indexing serves a warp whose lanes read several tensors. An
allocation keeps its address modulo 64 there: wide accesses are views of the array. Beside the bytes stand three flags
each: written by anybody before now, read by the present launch, written by the present launch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.ptx.faults import MISALIGNED, NEVER_WRITTEN, OUT_OF_BOUNDS, WRITE_TO_INPUT, Violation

_GAP = 64
_ALL = {1: 0x01, 2: 0x0101, 4: 0x01010101, 8: 0x0101010101010101}


@dataclass(frozen=True)
class Allocation:
    name: str
    address: int
    real: np.ndarray  # its bytes on the host
    writable: bool
    place: int  # in the array of all bytes

    @property
    def end(self) -> int:
        return self.address + self.real.size


class Memory:
    """All allocations of a test; what a launch reads or writes is checked against them."""

    def __init__(self) -> None:
        self.allocations: list[Allocation] = []
        self._bytes, self._written, self._used, self._made = (np.zeros(_GAP, np.uint8) for _ in range(4))
        self._index()

    def add(self, name: str, address: int, real: np.ndarray, *, written: bool, writable: bool) -> None:
        """`real`: uint8 view of the host's memory at `address`. An older allocation that lies there was freed."""
        if real.size == 0:
            return
        end = address + real.size
        self.allocations = [a for a in self.allocations if a.end <= address or a.address >= end]
        place = -(-self._bytes.size // _GAP) * _GAP + address % _GAP
        size = -(-(place + real.size) // _GAP) * _GAP + _GAP
        grown = []
        for old in (self._bytes, self._written, self._used, self._made):
            new = np.zeros(size, np.uint8)
            new[: old.size] = old
            grown.append(new)
        self._bytes, self._written, self._used, self._made = grown
        self._written[place : place + real.size] = written
        self.allocations.append(Allocation(name, address, real, writable, place))
        self._index()

    def known(self, address: int) -> bool:
        return any(a.address <= address < a.end for a in self.allocations)

    def mark_written(self, address: int) -> None:
        """The host has filled the allocation at `address`."""
        for a in self.allocations:
            if a.address <= address < a.end:
                self._written[a.place : a.place + a.real.size] = 1

    def begin_launch(self) -> None:
        for a in self.allocations:
            self._bytes[a.place : a.place + a.real.size] = a.real
        self._used[:], self._made[:] = 0, 0

    def end_launch(self) -> None:
        for a in self.allocations:
            if a.writable:
                a.real[:] = self._bytes[a.place : a.place + a.real.size]

    def distinct_bytes(self) -> tuple[int, int]:
        """(read, written) by the present launch, each byte once."""
        return int(np.count_nonzero(self._used)), int(np.count_nonzero(self._made))

    def load(self, addresses: np.ndarray, width: int, count: int = 1) -> list[np.ndarray]:
        """`count` neighbouring elements of `width` bytes at each address, as raw bits."""
        index = self._places(addresses, width * count, None) // width
        data, written, used = (self._view(a, width) for a in (self._bytes, self._written, self._used))
        values = []
        for i in range(count):
            missing = written[index + i] != _ALL[width]
            if missing.any():
                at = int(np.flatnonzero(missing)[0])
                raise Violation(NEVER_WRITTEN, self._describe(int(addresses[at]) + i * width, width), at)
            used[index + i] = _ALL[width]
            values.append(data[index + i])
        return values

    def store(self, addresses: np.ndarray, values: Iterable[np.ndarray], width: int, count: int = 1) -> None:
        index = self._places(addresses, width * count, WRITE_TO_INPUT) // width
        data, written, made = (self._view(a, width) for a in (self._bytes, self._written, self._made))
        for i, value in enumerate(values):
            data[index + i] = value
            written[index + i] = made[index + i] = _ALL[width]

    def _index(self) -> None:
        self.allocations.sort(key=lambda a: a.address)
        self._starts = np.array([a.address for a in self.allocations] or [0], np.uint64)
        self._ends = np.array([a.end for a in self.allocations] or [0], np.uint64)
        moves = [(a.place - a.address) % 2**64 for a in self.allocations] or [0]
        self._moves = np.array(moves, np.uint64)
        self._writable = np.array([a.writable for a in self.allocations] or [False])
        self._views: dict[tuple[int, int], np.ndarray] = {}

    def _view(self, array: np.ndarray, width: int) -> np.ndarray:
        key = id(array), width
        if key not in self._views:
            self._views[key] = array.view(f"u{width}")
        return self._views[key]

    def _places(self, addresses: np.ndarray, size: int, forbidden: str | None) -> np.ndarray:
        """Return where accesses of `size` bytes lie in the array of all bytes; raise the first violation."""
        askew = addresses & np.uint64(size - 1)
        if askew.any():
            at = int(np.flatnonzero(askew)[0])
            raise Violation(MISALIGNED, self._describe(int(addresses[at]), size), at)
        owner = np.searchsorted(self._starts, addresses, side="right") - 1
        outside = (owner < 0) | (addresses + np.uint64(size) > self._ends[owner])
        if outside.any():
            at = int(np.flatnonzero(outside)[0])
            raise Violation(OUT_OF_BOUNDS, self._describe(int(addresses[at]), size), at)
        if forbidden and not self._writable[owner].all():
            at = int(np.flatnonzero(~self._writable[owner])[0])
            raise Violation(forbidden, self._describe(int(addresses[at]), size), at)
        return (addresses + self._moves[owner]).astype(np.int64)

    def _describe(self, address: int, size: int) -> str:
        nearest = min(self.allocations, key=lambda a: max(a.address - address, address - a.end, 0), default=None)
        if nearest is None:
            return f"{size} bytes at {address:#x}, where nothing is allocated"
        offset = address - nearest.address
        return f"{size} bytes at byte {offset} of {nearest.name}, which has {nearest.real.size}"
