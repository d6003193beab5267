"""A kernel made ready to run: each instruction a step, a Python function of the machine and the lanes that take part.

Steps that only compute or move data are plain; those that decide where threads continue (branches, barriers, what a
warp does together) carry their `control`, and the machine deals with them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from bench.ptx import warps
from bench.ptx.bits import UnknownInstruction
from bench.ptx.counts import kind_of
from bench.ptx.instructions import meaning
from bench.ptx.operands import Lanes, Read, address_reader, reader, writer
from bench.ptx.parser import WIDTHS, Instruction, Kernel, Operand, Register, Symbol, parse

Do = Callable[..., None]


@dataclass(frozen=True)
class Step:
    instruction: Instruction
    do: Do
    kind: str = ""  # as the counts call it
    control: str = ""  # "branch", "exit", "barrier", "warp"; "" for all others
    target: int = -1  # of a branch
    guard: Read | None = None
    negated: bool = False
    members: Read | None = None  # the member mask of what a warp does together


@dataclass(frozen=True)
class Program:
    kernel: Kernel
    steps: list[Step]


def program_of(kernel: Kernel) -> Program:
    """Raise UnknownInstruction for an instruction that the executor does not have."""
    if not kernel.instructions or kernel.instructions[-1].parts[0] not in ("ret", "exit", "bra"):
        raise UnknownInstruction(f"{kernel.name} runs off its end")
    return Program(kernel, [_step(kernel, instruction) for instruction in kernel.instructions])


@cache
def program_in(text: str, name: str) -> Program:
    """The kernel `name` of a text of PTX."""
    return program_of(parse(text, name)[name])


def _step(kernel: Kernel, instruction: Instruction) -> Step:
    try:
        guard = instruction.guard
        read = reader(kernel, Register(guard.register), "?") if guard else None
        negated = bool(guard and guard.negated)
        return replace(_unguarded(kernel, instruction), kind=kind_of(instruction.opcode), guard=read, negated=negated)
    except (KeyError, ValueError) as error:
        raise UnknownInstruction(f"{kernel.name}, PTX line {instruction.line}: {instruction.text}: {error}") from error


def _nothing(machine, lanes: Lanes) -> None:
    pass


def _unguarded(kernel: Kernel, instruction: Instruction) -> Step:
    parts, operands = instruction.parts, instruction.operands
    match parts[0]:
        case "bra":
            return Step(instruction, _nothing, control="branch", target=kernel.labels[_symbol(operands[0])])
        case "ret" | "exit":
            return Step(instruction, _nothing, control="exit")
        case "bar" if parts[1] == "sync":
            if instruction.operands[0].value != 0:
                raise UnknownInstruction("a barrier other than 0")
            return Step(instruction, _nothing, control="barrier")
        case "bar" if parts[1] == "warp":
            do = lambda machine, lanes: machine.shared.warp_barrier(np.unique(machine.numbers(lanes) // warps.WARP))  # noqa: E731
            return Step(instruction, do, control="warp", members=reader(kernel, operands[0], "u4"))
        case "shfl":
            members = reader(kernel, operands[4], "u4")
            return Step(instruction, _shuffle(kernel, instruction), control="warp", members=members)
        case "redux":
            members = reader(kernel, operands[2], "u4")
            return Step(instruction, _redux(kernel, instruction), control="warp", members=members)
        case "ldmatrix" | "stmatrix":
            everybody = np.array([warps.EVERYBODY], np.uint32)
            members = lambda machine, lanes: everybody  # noqa: E731
            return Step(instruction, _matrix(kernel, instruction), control="warp", members=members)
        case "ld" | "st":
            return Step(instruction, _memory(kernel, instruction))
        case "mov":
            return Step(instruction, _move(kernel, instruction))
        case _:
            return Step(instruction, _compute(kernel, instruction))


def _symbol(operand: Operand) -> str:
    if not isinstance(operand, Symbol):
        raise UnknownInstruction(f"operand {operand} where a label is expected")
    return operand.name


def _compute(kernel: Kernel, instruction: Instruction) -> Do:
    target, *sources = instruction.operands
    kinds, _, function = meaning(instruction.opcode)
    # unset: compilers compute ahead of a choice what is then not chosen; what is used shows as a NaN or a wild address
    reads = [reader(kernel, source, kind, unset=True) for source, kind in zip(sources, kinds, strict=True)]
    if isinstance(target, Register):
        write = writer(kernel, target)

        def one(machine, lanes: Lanes) -> None:
            write(machine, lanes, function(*[read(machine, lanes) for read in reads]))

        return one
    writes = [writer(kernel, part) for part in target]

    def two(machine, lanes: Lanes) -> None:
        values = function(*[read(machine, lanes) for read in reads])
        values = values if isinstance(values, tuple) else (values, ~values)  # setp p|q: q is not p
        for write, value in zip(writes, values, strict=True):
            write(machine, lanes, value)

    return two


def _move(kernel: Kernel, instruction: Instruction) -> Do:
    """mov: from a register, a symbol or a special register; or between a register and its parts."""
    target, source = instruction.operands
    if isinstance(target, tuple):
        width = WIDTHS[instruction.parts[-1]] // len(target)
        read = reader(kernel, source, f"u{width * len(target)}")
        writes = [writer(kernel, part) for part in target]

        def split(machine, lanes: Lanes) -> None:
            parts = read(machine, lanes)[:, None].view(f"u{width}")
            for i, write in enumerate(writes):
                write(machine, lanes, np.ascontiguousarray(parts[:, i]))

        return split
    write = writer(kernel, target)
    if isinstance(source, tuple):
        width = WIDTHS[instruction.parts[-1]] // len(source)
        reads = [reader(kernel, part, f"u{width}") for part in source]

        def join(machine, lanes: Lanes) -> None:
            parts = np.broadcast_arrays(*[read(machine, lanes) for read in reads])
            write(machine, lanes, np.stack(parts, -1).view(f"u{width * len(parts)}")[:, 0])

        return join
    kind = instruction.parts[-1]
    copy = reader(kernel, source, "?" if kind == "pred" else f"u{WIDTHS[kind]}", unset=True)
    return lambda machine, lanes: write(machine, lanes, copy(machine, lanes))


def _memory(kernel: Kernel, instruction: Instruction) -> Do:
    """ld and st: {global (or generic), shared, param}, of one element or of a vector of 2 or 4."""
    parts = instruction.parts
    stores = parts[0] == "st"
    place, data = instruction.operands if stores else reversed(instruction.operands)
    kind = parts[-1]
    width, sign = WIDTHS[kind], "i" if kind[0] == "s" else "u"
    elements = data if isinstance(data, tuple) else (data,)
    if "f16" in kind or width * len(elements) > 16:
        raise UnknownInstruction(instruction.opcode)
    address = address_reader(kernel, place)
    space = next((p for p in parts[1:-1] if p in ("global", "shared", "param")), "global")
    if stores:
        reads = [reader(kernel, element, f"u{width}") for element in elements]
        return lambda machine, lanes: machine.store(
            space, lanes, address(machine, lanes), [read(machine, lanes) for read in reads], width
        )
    writes = [writer(kernel, element) for element in elements]

    def load(machine, lanes: Lanes) -> None:
        values = machine.load(space, lanes, address(machine, lanes), width, len(writes))
        for write, value in zip(writes, values, strict=True):
            write(machine, lanes, value.view(f"{sign}{width}"))

    return load


def _shuffle(kernel: Kernel, instruction: Instruction) -> Do:
    target, *sources = instruction.operands
    value, inside = target if isinstance(target, tuple) else (target, Register("_"))
    reads = [reader(kernel, source, "u4") for source in sources]
    write, write_inside = writer(kernel, value), writer(kernel, inside)
    mode = instruction.parts[2]

    def do(machine, lanes: Lanes) -> None:
        who = machine.numbers(lanes)
        given = [np.broadcast_to(read(machine, lanes), who.shape) for read in reads]
        result, within = warps.shuffle(mode, *given, who)
        write(machine, lanes, result)
        write_inside(machine, lanes, within)

    return do


def _redux(kernel: Kernel, instruction: Instruction) -> Do:
    target, source, members = instruction.operands
    kind = f"{'i' if instruction.parts[-1][0] == 's' else 'u'}4"
    read, masks, write = reader(kernel, source, kind), reader(kernel, members, "u4"), writer(kernel, target)

    def do(machine, lanes: Lanes) -> None:
        values = np.broadcast_to(read(machine, lanes), machine.numbers(lanes).shape)
        write(machine, lanes, warps.reduce_warp(instruction.parts[2], values, masks(machine, lanes)))

    return do


def _matrix(kernel: Kernel, instruction: Instruction) -> Do:
    """ldmatrix and stmatrix of 1, 2 or 4 matrices; lanes 8 j .. 8 j + 7 hold the addresses of the rows of matrix j."""
    stores = instruction.parts[0] == "stmatrix"
    place, fragments = instruction.operands if stores else reversed(instruction.operands)
    count, transposed = len(fragments), "trans" in instruction.parts
    address = address_reader(kernel, place)
    access = reader if stores else writer
    words = [access(kernel, fragment, "u4") if stores else access(kernel, fragment) for fragment in fragments]

    def do(machine, lanes: Lanes) -> None:
        who = machine.numbers(lanes)
        named = who % warps.WARP < 8 * count
        rows_at, owners = np.broadcast_to(address(machine, lanes), who.shape)[named], who[named]
        if stores:
            given = [np.broadcast_to(read(machine, lanes), who.shape) for read in words]
            rows = warps.from_fragments(np.stack(given), transposed).reshape(-1, 4)
            machine.store("shared", owners, rows_at, list(np.ascontiguousarray(rows.T)), 4)
            return
        loaded = machine.load("shared", owners, rows_at, 4, 4)
        rows = np.stack(loaded, -1).reshape(-1, count, 8, 4)
        for write, word in zip(words, warps.to_fragments(rows, transposed), strict=True):
            write(machine, lanes, word)

    return do
