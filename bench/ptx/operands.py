"""Reading and writing the operands of an instruction, for all threads or for some of them.

A register holds raw bits: an array with one element per thread, or with a single one where all threads agree, which
numpy's broadcasting turns into every thread's. Arrays in registers are never changed in place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.ptx.bits import UnknownInstruction, of_bits
from bench.ptx.faults import UNSET_REGISTER, Violation
from bench.ptx.parser import Address, Immediate, Kernel, Operand, Register, Symbol

Lanes = np.ndarray | None  # numbers of the threads that take part, in order; None: all
Machine = Any  # bench.ptx.machine.Machine, which imports this file
Read = Callable[[Machine, Lanes], np.ndarray]
Write = Callable[[Machine, Lanes, np.ndarray], None]
POISON = 0x7FBADBAD7FBADBAD  # of threads that never wrote a register: a NaN of either width


def reader(kernel: Kernel, operand: Operand, kind: str, *, unset: bool = False) -> Read:
    """A function that gives the operand's value as numpy type `kind`; `unset`: even of a register never written, which
    may be computed with, and moved, but not stored, and not decide anything."""
    if isinstance(operand, Immediate):
        return _constant(_bits_of(operand, kind))
    if isinstance(operand, Symbol):
        return _constant(of_bits(_place_of(kernel, operand), kind))
    if not isinstance(operand, Register):
        raise UnknownInstruction(f"operand {operand} where a value is expected")
    name = operand.name
    if name not in kernel.registers:
        return lambda machine, lanes: _chosen(machine.special[name], lanes).astype(kind)
    number, width = kernel.registers[name]
    size = 0 if kind == "?" else np.dtype(kind).itemsize
    if width < size:
        raise UnknownInstruction(f"{name} of {width} bytes is read as {size}")

    def read(machine: Machine, lanes: Lanes) -> np.ndarray:
        value = machine.registers[number]
        if value is None:
            if not unset:
                raise Violation(UNSET_REGISTER, name)
            value = _poison(width)
        value = _chosen(value, lanes)
        return value.view(kind) if width == size else value.astype(f"u{size}").view(kind)

    return read


def writer(kernel: Kernel, operand: Operand) -> Write:
    """A function that puts a value into the operand's register, extended by the sign or by zeros to its width."""
    if operand == Register("_"):
        return lambda machine, lanes, value: None
    if not isinstance(operand, Register):
        raise UnknownInstruction(f"operand {operand} where a register is expected")
    number, width = kernel.registers[operand.name]

    def write(machine: Machine, lanes: Lanes, value: np.ndarray) -> None:
        if width:
            if value.itemsize < width:
                value = value.astype(f"{'i' if value.dtype.kind == 'i' else 'u'}{width}")
            value = value.view(f"u{width}")
        if lanes is None:
            machine.registers[number] = value
            return
        old = machine.registers[number]
        if old is None:
            old = _poison(width)
        new = np.broadcast_to(old, machine.threads).copy()
        new[lanes] = value
        machine.registers[number] = new

    return write


def address_reader(kernel: Kernel, operand: Operand) -> Read:
    """The 64-bit address that [base + offset] names."""
    if not isinstance(operand, Address):
        raise UnknownInstruction(f"operand {operand} where an address is expected")
    base, offset = operand.base, operand.offset
    width = kernel.registers[base.name][1] if isinstance(base, Register) else 8
    read, shift = reader(kernel, base, f"u{width}"), of_bits(offset, "u8")
    return lambda machine, lanes: read(machine, lanes).astype(np.uint64) + shift


def _poison(width: int) -> np.ndarray:
    return of_bits(POISON, f"u{width}") if width else np.zeros(1, bool)


def _chosen(value: np.ndarray, lanes: Lanes) -> np.ndarray:
    return value if lanes is None or value.size == 1 else value[lanes]


def _constant(value: np.ndarray) -> Read:
    return lambda machine, lanes: value


def _bits_of(immediate: Immediate, kind: str) -> np.ndarray:
    if kind == "?":
        return np.array([immediate.value != 0])
    if kind[0] == "f" and not immediate.floating:
        return np.array([immediate.value], kind)
    return of_bits(immediate.value, kind)


def _place_of(kernel: Kernel, symbol: Symbol) -> int:
    """A parameter's offset among all parameters, or a shared variable's address."""
    if symbol.name in kernel.shared:
        return kernel.shared[symbol.name]
    for name, offset, _ in kernel.parameters:
        if name == symbol.name:
            return offset
    raise UnknownInstruction(f"symbol {symbol.name} is neither a parameter nor in shared memory")
