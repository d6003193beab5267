"""The meaning of an instruction, and the instructions that move bits: shifts, fields, permutations, signs.

Types are numpy's: "u4" is a 32-bit register as an unsigned integer, "?" a predicate. bfloat16 is "u2": its bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench.ptx.parser import WIDTHS

Function = Callable[..., np.ndarray | tuple[np.ndarray, np.ndarray]]


class Meaning(NamedTuple):
    operands: tuple[str, ...]
    result: str
    function: Function


class UnknownInstruction(ValueError):
    """The executor does not know an instruction; it never guesses."""


def numpy_type(kind: str) -> str:
    if kind == "pred":
        return "?"
    if kind in ("f32", "f64"):
        return f"f{WIDTHS[kind]}"
    return f"i{WIDTHS[kind]}" if kind[0] == "s" else f"u{WIDTHS[kind]}"


def shift_left(kind: str) -> Meaning:
    bits, unsigned = 8 * WIDTHS[kind], f"u{WIDTHS[kind]}"

    def function(a: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.where(by < bits, a << np.minimum(by, bits - 1).astype(unsigned), 0).astype(unsigned)

    return Meaning((unsigned, "u4"), unsigned, function)


def shift_right(kind: str) -> Meaning:
    bits, of = 8 * WIDTHS[kind], numpy_type(kind)

    def function(a: np.ndarray, by: np.ndarray) -> np.ndarray:
        shifted = a >> np.minimum(by, bits - 1).astype(of)
        return shifted if of[0] == "i" else np.where(by < bits, shifted, 0).astype(of)

    return Meaning((of, "u4"), of, function)


def extract(kind: str) -> Meaning:
    """bfe: `length` bits from `start` on, extended by their sign where the type has one."""
    of, bits = numpy_type(kind), 8 * WIDTHS[kind]

    def function(a: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        start, length = (start & 0xFF).astype(np.int64), (length & 0xFF).astype(np.int64)
        if ((length == 0) | (start + length > bits)).any():
            raise UnknownInstruction("bfe of no bits, or of bits beyond the register")
        moved = a << (bits - start - length).astype(of)
        return moved >> (bits - length).astype(of)

    return Meaning((of, "u4", "u4"), of, function)


def insert(kind: str) -> Meaning:
    """bfi: the low `length` bits of a in place of those of b from `start` on."""
    of, bits = numpy_type(kind), 8 * WIDTHS[kind]

    def function(a: np.ndarray, b: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        start, length = (start & 0xFF).astype(of), (length & 0xFF).astype(of)
        if ((length == 0) | (start + length > bits)).any():
            raise UnknownInstruction("bfi of no bits, or of bits beyond the register")
        ones = ~np.zeros(1, of) >> (of_bits(bits, of) - length) << start
        return (b & ~ones) | (a << start & ones)

    return Meaning((of, of, "u4", "u4"), of, function)


def permute() -> Meaning:
    """prmt: each byte of the result is one of the eight of a and b that a nibble of c names; where its highest bit is
    set, that byte's sign repeated."""

    def function(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
        result = np.zeros(1, np.uint64)
        for i in range(4):
            nibble = c.astype(np.uint64) >> np.uint64(4 * i) & np.uint64(15)
            byte = both >> np.uint64(8) * (nibble & np.uint64(7)) & np.uint64(255)
            sign = np.where(byte >= 128, np.uint64(255), np.uint64(0))
            result = result | np.where(nibble >= 8, sign, byte) << np.uint64(8 * i)
        return result.astype(np.uint32)

    return Meaning(("u4",) * 3, "u4", function)


def of_bits(value: int, kind: str) -> np.ndarray:
    """An integer as the raw bits of a register: an array of one element, which numpy broadcasts."""
    return np.array([value % 2 ** (8 * np.dtype(kind).itemsize)], f"u{np.dtype(kind).itemsize}").view(kind)


def without_sign(kind: str, flush: bool = False) -> Meaning:
    unsigned = f"u{WIDTHS[kind]}"
    mask = {
        "f16": 0x7FFF,
        "bf16": 0x7FFF,
        "f16x2": 0x7FFF7FFF,
        "bf16x2": 0x7FFF7FFF,
        "f32": 2**31 - 1,
        "f64": 2**63 - 1,
    }[kind]

    def function(a: np.ndarray) -> np.ndarray:
        size = a & of_bits(mask, unsigned)
        return np.where(size < 0x00800000, 0, size).astype(unsigned) if flush else size

    return Meaning((unsigned,), unsigned, function)
