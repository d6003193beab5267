"""Counts of a launch: instructions by kind, requests, sectors and bank conflicts.

A request is one memory instruction of one warp; a sector is 32 aligned bytes, the unit in which an NVIDIA GPU moves
global memory; a wavefront is one pass over the 32 banks, four bytes wide, of shared memory.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

SECTOR, BANKS, WARP = 32, 32, 32


@dataclass
class Counts:
    """The counts of one launch, or of several added up."""

    warp_instructions: Counter = field(default_factory=Counter)  # by kind
    lane_instructions: int = 0
    warps: int = 0
    requests: int = 0
    sectors: int = 0
    bytes_requested: int = 0
    distinct_bytes: int = 0  # read, and written, by each launch
    wavefronts: int = 0
    least_wavefronts: int = 0

    def add(self, other: "Counts") -> None:
        self.warp_instructions.update(other.warp_instructions)
        for name in self.numbers():
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def scaled(self, factor: float) -> "Counts":
        """Return the counts of a whole launch, of which only one in `factor` blocks was executed."""
        numbers = {name: round(factor * number) for name, number in self.numbers().items()}
        kinds = Counter({kind: round(factor * number) for kind, number in self.warp_instructions.items()})
        return Counts(kinds, **numbers)

    def numbers(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if name != "warp_instructions"}

    @property
    def issued(self) -> int:
        return sum(self.warp_instructions.values())

    def count_global(self, addresses: np.ndarray, lanes: np.ndarray, size: int) -> None:
        warp = lanes // WARP
        sectors = (addresses // np.uint64(SECTOR)).astype(np.int64)
        self.requests += 1 + int(np.count_nonzero(np.diff(warp)))
        self.sectors += np.unique(warp * (1 << 48) + sectors).size
        self.bytes_requested += lanes.size * size

    def count_shared(self, addresses: np.ndarray, lanes: np.ndarray, size: int) -> None:
        """A warp's 8-byte accesses go in two halves, its 16-byte accesses in four quarters."""
        together = WARP // max(1, size // 4)
        part = lanes // together
        words = (addresses.astype(np.int64)[:, None] // 4 + np.arange(max(1, size // 4))).ravel()
        keys = np.unique(np.repeat(part, max(1, size // 4)) * (1 << 40) + words)
        banks = keys // (1 << 40) * BANKS + keys % BANKS
        named, passes = np.unique(banks, return_counts=True)
        parts, begin = np.unique(named // BANKS, return_index=True)
        self.wavefronts += int(np.maximum.reduceat(passes, begin).sum())
        self.least_wavefronts += parts.size


KINDS = {
    "memory": ("ld", "st"),
    "shuffle": ("shfl", "redux", "ldmatrix", "stmatrix"),
    "barrier": ("bar",),
    "branch": ("bra", "ret", "exit"),
    "convert": ("cvt", "cvta"),
    "move": ("mov", "selp"),
}
_OF = {name: kind for kind, names in KINDS.items() for name in names}


def kind_of(opcode: str) -> str:
    """memory, shuffle, barrier, branch, convert, move, float32, float64, integer 64, or integer (32 bits and less)."""
    first, last = opcode.split(".")[0], opcode.split(".")[-1]
    if first == "ld" and ".param" in opcode:
        return "move"
    if first in _OF:
        return _OF[first]
    if last in ("f32", "bf16", "bf16x2"):
        return "float32"
    if last == "f64":
        return "float64"
    return "integer 64" if "64" in last or ".wide." in opcode else "integer"
