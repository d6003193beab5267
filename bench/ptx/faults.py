"""The faults of kernels, reported with the kernel, the line of its PTX, the block and the thread."""

from bench.ptx.parser import Instruction

OUT_OF_BOUNDS = "out of bounds"
MISALIGNED = "misaligned"
NEVER_WRITTEN = "read of bytes never written"
WRITE_TO_INPUT = "write to an input"
RACE = "shared-memory race"
NOT_REACHED = "not reached by all lanes"
DIVISION_BY_ZERO = "integer division by zero"
UNSET_REGISTER = "read of a register never written"


class Violation(Exception):
    """A fault as the memory or an instruction sees it; `at` counts among the lanes that take part."""

    def __init__(self, kind: str, detail: str, at: int = 0):
        super().__init__(kind, detail, at)
        self.kind, self.detail, self.at = kind, detail, at


class Fault(Exception):
    """A fault of a kernel: `kind` is one of the constants above."""

    def __init__(self, kernel: str, instruction: Instruction, block: int, thread: int, violation: Violation):
        self.kernel, self.instruction, self.block, self.thread = kernel, instruction, block, thread
        self.kind, self.detail = violation.kind, violation.detail
        source = f", source line {instruction.source}" if instruction.source else ""
        super().__init__(
            f"{self.kind}: {self.detail}; kernel {kernel}, PTX line {instruction.line}{source}, block {block}, thread "
            f"{thread}: {instruction.text}"
        )
