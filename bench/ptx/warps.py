"""Instructions that the lanes of a warp carry out together: shuffles, reductions, matrices through shared memory.

`lanes` are the threads that take part, in order, whole warps as far as their masks go; values have one element per
lane.
"""

import numpy as np

from bench.ptx.bits import UnknownInstruction
from bench.ptx.faults import NOT_REACHED, Violation

WARP = 32
EVERYBODY = 0xFFFFFFFF


def present(lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(warps, which of their 32 lanes are among `lanes`, as bits)."""
    warps, begin = np.unique(lanes // WARP, return_index=True)
    bits = np.uint64(1) << (lanes % WARP).astype(np.uint64)
    return warps, np.bitwise_or.reduceat(bits, begin).astype(np.uint32)


def complete(lanes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return whether all lanes of each lane's member mask are there; masks: one per lane."""
    warps, there = present(lanes)
    own = np.searchsorted(warps, lanes // WARP)
    return (masks & ~there[own]) == 0


def shuffle(
    mode: str, values: np.ndarray, b: np.ndarray, c: np.ndarray, masks: np.ndarray, lanes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """shfl.sync: (each lane's value from another, whether that one lay within the segment)."""
    lane = lanes % WARP
    b, segment, bound = b.astype(np.int64) & 31, c.astype(np.int64) >> 8 & 31, c.astype(np.int64) & 31
    last = (lane & segment) | (bound & ~segment)
    source = {
        "up": lane - b,
        "down": lane + b,
        "bfly": lane ^ b,
        "idx": (lane & segment) | (b & ~segment),
    }[mode]
    inside = source >= last if mode == "up" else source <= last
    source = np.where(inside, source, lane)
    absent = masks.astype(np.int64) >> source & 1 == 0
    if absent.any():
        at = int(np.flatnonzero(absent)[0])
        raise Violation(NOT_REACHED, f"lane {source[at]}, which is not in the member mask, is read", at)
    return values[np.searchsorted(lanes, lanes - lane + source)], inside


def reduce_warp(how: str, values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """redux.sync over whole warps."""
    if (masks != EVERYBODY).any():
        raise UnknownInstruction("redux.sync of a part of a warp")
    operation = {"min": np.min, "max": np.max, "add": np.sum, "or": np.bitwise_or.reduce}[how]
    return np.repeat(operation(values.reshape(-1, WARP), axis=1).astype(values.dtype), WARP)


def to_fragments(rows: np.ndarray, transposed: bool) -> np.ndarray:
    """Matrices of 8x8 16-bit elements [warps, matrices, 8, 4 words] -> each lane's word of each: [matrices, lanes].

    Lane t holds the elements 2 (t % 4) and the next one of row t / 4; of the transposed matrix where that is asked.
    """
    if transposed:
        elements = np.ascontiguousarray(rows).view(np.uint16)
        rows = np.ascontiguousarray(elements.swapaxes(2, 3)).view(np.uint32)
    return rows.reshape(*rows.shape[:2], WARP).swapaxes(0, 1).reshape(rows.shape[1], -1)


def from_fragments(words: np.ndarray, transposed: bool) -> np.ndarray:
    """[matrices, lanes] -> [warps, matrices, 8, 4 words]; the inverse of `to_fragments`."""
    rows = words.reshape(words.shape[0], -1, 8, 4).swapaxes(0, 1)
    if transposed:
        elements = np.ascontiguousarray(rows).view(np.uint16)
        rows = np.ascontiguousarray(elements.swapaxes(2, 3)).view(np.uint32)
    return rows
