"""The arithmetic instructions of PTX, computed on arrays of all threads at once (section 9.7 of the PTX ISA).

`meaning(opcode)` gives the types of an instruction's operands, the type of its result, and the function between them.
The types are those of bits.py.
"""

import re
from collections.abc import Callable
from functools import cache

import numpy as np

from bench.ptx import floats
from bench.ptx.bits import (
    Function,
    Meaning,
    UnknownInstruction,
    extract,
    insert,
    numpy_type,
    permute,
    shift_left,
    shift_right,
    without_sign,
)
from bench.ptx.faults import DIVISION_BY_ZERO, Violation
from bench.ptx.parser import WIDTHS


@cache
def meaning(opcode: str) -> Meaning:
    """Raises UnknownInstruction for unsupported instructions; nothing is guessed."""
    for pattern, make in _TABLE:
        if found := re.fullmatch(pattern, opcode):
            return make(*found.groups())
    raise UnknownInstruction(f"PTX instruction {opcode} is unknown to the executor")


def _same(function: Function, count: int) -> Callable[[str], Meaning]:
    """`count` operands and the result of one type, the opcode's last part."""

    def make(kind: str) -> Meaning:
        return Meaning((numpy_type(kind),) * count, numpy_type(kind), function)

    return make


def _wide(kind: str) -> str:
    return f"{numpy_type(kind)[0]}{2 * WIDTHS[kind]}"


def _multiply_wide(kind: str) -> Meaning:
    return Meaning((numpy_type(kind),) * 2, _wide(kind), lambda a, b: a.astype(_wide(kind)) * b.astype(_wide(kind)))


def _multiply_add_wide(kind: str) -> Meaning:
    wide = _wide(kind)
    return Meaning((numpy_type(kind),) * 2 + (wide,), wide, lambda a, b, c: a.astype(wide) * b.astype(wide) + c)


def _multiply_high(kind: str) -> Meaning:
    wide, bits = _wide(kind), 8 * WIDTHS[kind]

    def function(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a.astype(wide) * b.astype(wide)) >> bits).astype(numpy_type(kind))

    return Meaning((numpy_type(kind),) * 2, numpy_type(kind), function)


def _checked(divide: Function) -> Function:
    def function(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        zero = np.broadcast_to(b == 0, np.broadcast_shapes(a.shape, b.shape))
        if zero.any():
            raise Violation(DIVISION_BY_ZERO, "the divisor is 0", int(np.flatnonzero(zero)[0]))
        return divide(a, b)

    return function


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rounded towards zero."""
    floor = a // b
    return floor + ((floor < 0) & (floor * b != a)).astype(a.dtype)


_COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
            "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
            "hs": np.greater_equal}  # fmt: skip


def _compare(how: str, kind: str) -> Meaning:
    """Floating-point comparisons are false of a NaN, but for those that end in u, which are true."""
    of = numpy_type(kind)
    if kind[0] != "f" and not kind.startswith("bf16"):
        return Meaning((of, of), "?", _COMPARE[how])
    unordered = how.endswith("u")
    compare = _COMPARE[how.removesuffix("u")]

    def ordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        nan = np.isnan(a) | np.isnan(b)
        return compare(a, b) | nan if unordered else compare(a, b) & ~nan

    if "f16" in kind:
        read = _from_f16 if kind.startswith("f16") else floats.from_bf16

        def one(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return ordered(read(a.astype(np.uint16)), read(b.astype(np.uint16)))

        def two(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return one(a, b), one(a >> np.uint32(16), b >> np.uint32(16))

        return Meaning((of, of), "?", two if kind.endswith("x2") else one)
    return Meaning((of, of), "?", ordered)


def _pack(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)


def _from_f16(bits: np.ndarray) -> np.ndarray:
    return bits.view("f2").astype(np.float32)


def _in_16_bits(operation: Function, shape: str) -> Meaning:
    """Operate on one 16-bit number, or on two in a register, in float32, whose 24 bits are enough that rounding twice
    equals rounding once."""
    read, write = (_from_f16, _to_f16) if shape.startswith("f16") else (floats.from_bf16, floats.to_bf16)

    def one(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return write(operation(read(a), read(b)))

    def two(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        low = one(a.astype(np.uint16), b.astype(np.uint16))
        return _pack(low, one((a >> np.uint32(16)).astype(np.uint16), (b >> np.uint32(16)).astype(np.uint16)))

    kind = "u4" if shape.endswith("x2") else "u2"
    return Meaning((kind, kind), kind, two if shape.endswith("x2") else one)


def _to_f16(values: np.ndarray) -> np.ndarray:
    return floats.canonical(values.astype("f2")).view("u2")


def _convert_pair(shape: str) -> Meaning:
    """The first operand becomes the upper half."""
    to_half = floats.to_bf16 if shape == "bf16x2" else _to_f16
    return Meaning(("f4", "f4"), "u4", lambda high, low: _pack(to_half(low), to_half(high)))


def _convert(rounding: str | None, to: str, of: str) -> Meaning:
    source, target = numpy_type(of), numpy_type(to)
    if to == "bf16":
        return Meaning((source,), "u2", floats.to_bf16)
    if of == "bf16":
        return Meaning(("u2",), target, lambda a: floats.from_bf16(a).astype(target))
    if to == "f16":
        return Meaning((source,), "u2", _to_f16)
    if of == "f16":
        return Meaning(("u2",), target, lambda a: floats.canonical(a.view("f2").astype(target)))
    if rounding in ("rni", "rzi", "rmi", "rpi"):
        whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding]
        if target[0] == "f":
            return Meaning((source,), target, lambda a: floats.canonical(whole(a).astype(target)))
        return Meaning((source,), target, lambda a: floats.to_integer(a, target, whole))
    if "f" in source + target:
        return Meaning((source,), target, lambda a: floats.canonical(a.astype(target)))
    return Meaning((source,), target, lambda a: a.astype(target))


_INT = r"(s16|u16|s32|u32|s64|u64|b16|b32|b64)"
_FLOAT = r"(f32|f64)"
_TABLE: list[tuple[str, Callable[..., Meaning]]] = [
    (rf"add\.{_INT}", _same(np.add, 2)),
    (rf"sub\.{_INT}", _same(np.subtract, 2)),
    (rf"mul\.lo\.{_INT}", _same(np.multiply, 2)),
    (rf"mad\.lo\.{_INT}", _same(lambda a, b, c: a * b + c, 3)),
    (r"mul\.wide\.(s16|u16|s32|u32)", _multiply_wide),
    (r"mad\.wide\.(s16|u16|s32|u32)", _multiply_add_wide),
    (r"mul\.hi\.(s32|u32)", _multiply_high),
    (rf"div\.{_INT}", _same(_checked(_quotient), 2)),
    (rf"rem\.{_INT}", _same(_checked(np.fmod), 2)),
    (rf"neg\.{_INT}", _same(np.negative, 1)),
    (rf"min\.{_INT}", _same(np.minimum, 2)),
    (rf"max\.{_INT}", _same(np.maximum, 2)),
    (rf"add\.(?:rn\.)?{_FLOAT}", _same(floats.rounded(np.add), 2)),
    (rf"sub\.(?:rn\.)?{_FLOAT}", _same(floats.rounded(np.subtract), 2)),
    (rf"mul\.(?:rn\.)?{_FLOAT}", _same(floats.rounded(np.multiply), 2)),
    (rf"div\.rn\.{_FLOAT}", _same(floats.rounded(np.divide), 2)),
    (rf"sqrt\.rn\.{_FLOAT}", _same(floats.rounded(np.sqrt), 1)),
    (rf"neg\.{_FLOAT}", _same(np.negative, 1)),
    (rf"min\.{_FLOAT}", _same(floats.minimum, 2)),
    (rf"max\.{_FLOAT}", _same(floats.maximum, 2)),
    (r"fma\.rn\.(f32)", _same(floats.fma32, 3)),
    (r"fma\.rn\.(f64)", _same(floats.fma64, 3)),
    (r"abs\.(f32|f64|b?f16(?:x2)?)", without_sign),
    (r"abs\.ftz\.(f32)", lambda kind: without_sign(kind, flush=True)),
    (r"add\.(?:rn\.)?(b?f16(?:x2)?)", lambda shape: _in_16_bits(np.add, shape)),
    (r"sub\.(?:rn\.)?(b?f16(?:x2)?)", lambda shape: _in_16_bits(np.subtract, shape)),
    (r"mul\.(?:rn\.)?(b?f16(?:x2)?)", lambda shape: _in_16_bits(np.multiply, shape)),
    (rf"and\.{_INT[:-1]}|pred)", _same(np.bitwise_and, 2)),
    (rf"or\.{_INT[:-1]}|pred)", _same(np.bitwise_or, 2)),
    (rf"xor\.{_INT[:-1]}|pred)", _same(np.bitwise_xor, 2)),
    (rf"not\.{_INT[:-1]}|pred)", _same(np.invert, 1)),
    (rf"shl\.{_INT}", shift_left),
    (rf"shr\.{_INT}", shift_right),
    (r"bfe\.(s32|u32|s64|u64)", extract),
    (r"bfi\.(b32|b64)", insert),
    (r"prmt\.b32", permute),
    (r"setp\.(\w+)\.(\w+)", _compare),
    (rf"selp\.{_INT[:-1]}|f32|f64)", lambda kind: Meaning((f"u{WIDTHS[kind]}",) * 2 + ("?",), f"u{WIDTHS[kind]}",
                                                        lambda a, b, which: np.where(which, a, b))),
    (r"cvt\.rn\.(bf16x2|f16x2)\.f32", _convert_pair),
    (r"cvt\.(?:(rn|rni|rzi|rmi|rpi)\.)?(\w+)\.(\w+)", _convert),
    (r"cvta(?:\.to)?\.(?:global|shared|param)\.(u64)", _same(lambda a: a, 1)),
]  # fmt: skip
