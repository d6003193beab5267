"""PTX text -> kernels: parameters, registers, shared variables, and instructions with their operands.

Only what a kernel's entry function may contain is read (no calls, no textures); section 4 and 5 of NVIDIA's PTX ISA
define the syntax. A line number is that of the text, counted from 1.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

WIDTHS = {"b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4, "u32": 4, "s32": 4,
          "f32": 4, "f16x2": 4, "bf16x2": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8, "pred": 0}  # fmt: skip


@dataclass(frozen=True)
class Register:
    name: str


@dataclass(frozen=True)
class Immediate:
    """An integer, or the bits of a floating-point number (`floating`: of how many bytes)."""

    value: int
    floating: int = 0


@dataclass(frozen=True)
class Symbol:
    """The address of a parameter or of a shared variable."""

    name: str


@dataclass(frozen=True)
class Address:
    """[base + offset]"""

    base: "Register | Symbol | Immediate"
    offset: int


Operand = Register | Immediate | Symbol | Address | tuple


@dataclass(frozen=True)
class Guard:
    """@%p or @!%p: the instruction runs where the register is not `negated`."""

    register: str
    negated: bool


@dataclass(frozen=True)
class Instruction:
    line: int
    text: str
    opcode: str
    operands: tuple[Operand, ...]
    guard: Guard | None
    source: int  # line of the kernel's source by the last .loc; 0 where there is none

    @property
    def parts(self) -> list[str]:
        return self.opcode.split(".")


@dataclass
class Kernel:
    name: str
    parameters: list[tuple[str, int, int]] = field(default_factory=list)  # name, offset, bytes
    registers: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> number, bytes (0: a predicate)
    shared: dict[str, int] = field(default_factory=dict)  # name -> address of the variable in shared memory
    static_shared: int = 0
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # name -> index of the instruction behind it

    @property
    def parameter_bytes(self) -> int:
        return max((offset + size for _, offset, size in self.parameters), default=0)


_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)[^{;]*\{", re.DOTALL)
_SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr[\s.\w]*?\s)?([\w$]+)(?:\[(\d+)\])?\s*$")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.DOTALL)
_LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
_SPACE = re.compile(r"\s*")
_STATEMENT = re.compile(r"[{}]|\.(?:loc|file|pragma)\b[^\n]*|[\w$]+\s*:(?!:)|[^;]*;")
_INSTRUCTION = re.compile(r"(?:@(!?)(%?[\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)


def parse(text: str, only: str | None = None) -> dict[str, Kernel]:
    """Name -> kernel, of every entry function in `text` (or of the one named `only`). Raises ValueError, with the line,
    for what is not understood."""
    text = _without_comments(text)
    shared = [found.groups() for found in _SHARED.finditer(text.split(".entry", 1)[0])]
    kernels = {}
    for found in _ENTRY.finditer(text):
        kernel = Kernel(found.group(1))
        if only not in (None, kernel.name):
            continue
        _read_parameters(kernel, found.group(2))
        for align, name, size in shared:
            _add_shared(kernel, int(align), name, size)
        _read_body(kernel, text, found.end())
        kernels[kernel.name] = kernel
    return kernels


def split(text: str) -> dict[str, str]:
    """Name -> the module with this kernel alone, on the lines where it was, of every entry function in `text`."""
    entries = [
        (found.start(), found.group(1)) for found in re.finditer(r"^\.(?:visible|weak) \.entry ([\w$]+)", text, re.M)
    ]
    head = text[: entries[0][0]]
    parts = {}
    for (start, name), (end, _) in zip(entries, [*entries[1:], (len(text), "")]):
        parts[name] = head + "\n" * text.count("\n", len(head), start) + text[start:end]
    return parts


def _without_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"), text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def _read_parameters(kernel: Kernel, text: str) -> None:
    offset = 0
    for declaration in filter(None, (part.strip() for part in text.split(","))):
        found = _PARAMETER.match(declaration)
        if found is None:
            raise ValueError(f"{kernel.name}: unknown parameter declaration {declaration!r}")
        align, kind, name, count = found.groups()
        width = WIDTHS[kind]
        align = int(align or width)
        offset = -(-offset // align) * align
        size = width * int(count or 1)
        kernel.parameters.append((name, offset, size))
        offset += size


def _add_shared(kernel: Kernel, align: int, name: str, size: str) -> None:
    """Variables of a declared size lie one after another; those without one (extern) begin behind all of them."""
    start = -(-kernel.static_shared // align) * align
    kernel.shared[name] = start
    kernel.static_shared = start + int(size or 0)


def _read_body(kernel: Kernel, text: str, start: int) -> None:
    source = 0
    for line, statement in _statements(text, start):
        while label := _LABEL.match(statement):
            kernel.labels[label.group(1)] = len(kernel.instructions)
            statement = statement[label.end() :].strip()
        if not statement:
            continue
        if statement.startswith("."):
            if found := _REGISTERS.match(statement):
                _declare(kernel, *found.groups())
            elif found := _SHARED.match(statement):
                _add_shared(kernel, int(found.group(1)), found.group(2), found.group(3))
            elif found := re.match(r"\.loc\s+\d+\s+(\d+)", statement):
                source = int(found.group(1))
            elif not statement.startswith((".pragma", ".file")):
                raise ValueError(f"{kernel.name}, line {line}: unknown directive {statement!r}")
            continue
        found = _INSTRUCTION.match(statement)
        if found is None:
            raise ValueError(f"{kernel.name}, line {line}: not an instruction: {statement!r}")
        negated, guard, opcode, operands = found.groups()
        kernel.instructions.append(
            Instruction(
                line,
                " ".join(statement.split()),
                opcode,
                tuple(_operand(part) for part in _split(operands)),
                Guard(guard, negated == "!") if guard else None,
                source,
            )
        )


def _statements(text: str, place: int) -> Iterator[tuple[int, str]]:
    """(line, statement) of a function's body that begins at `place`, behind its brace. A brace where a statement begins
    opens or closes a scope; registers of inner scopes keep their names, since compilers use one type for each."""
    depth, line = 1, text.count("\n", 0, place) + 1
    while depth:
        begun = _SPACE.match(text, place).end()
        line += text.count("\n", place, begun)
        found = _STATEMENT.match(text, begun)
        place = found.end()
        if found.group() in "{}":
            depth += 1 if found.group() == "{" else -1
        else:
            yield line, found.group().rstrip(";").strip()
        line += text.count("\n", begun, place)


def _declare(kernel: Kernel, kind: str, names: str) -> None:
    for name in (part.strip() for part in names.split(",")):
        found = re.fullmatch(r"(.+)<(\d+)>", name)
        each = [f"{found.group(1)}{i}" for i in range(int(found.group(2)))] if found else [name]
        for one in each:
            kernel.registers.setdefault(one, (len(kernel.registers), WIDTHS[kind]))


def _split(operands: str) -> list[str]:
    """At commas outside of braces and brackets."""
    parts = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", operands)
    return [part.strip() for part in parts if part.strip()]


def _operand(text: str) -> Operand:
    if text.startswith("{"):
        return tuple(_operand(part) for part in _split(text.strip("{} \n\t")))
    if text.startswith("["):
        found = re.fullmatch(r"\[\s*([^\s+]+)\s*(?:\+\s*(-?\w+)\s*)?\]", text)
        if found is None:
            raise ValueError(f"unknown address {text!r}")
        return Address(_operand(found.group(1)), int(found.group(2) or "0", 0))
    if "|" in text:
        return tuple(_operand(part) for part in text.split("|"))
    if found := re.fullmatch(r"0([fFdD])([0-9A-Fa-f]{8,16})", text):
        return Immediate(int(found.group(2), 16), 4 if found.group(1) in "fF" else 8)
    if re.fullmatch(r"-?(0[xX][0-9A-Fa-f]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    if text.startswith("%") or text in ("_", "tmp"):
        return Register(text)
    return Symbol(text)
