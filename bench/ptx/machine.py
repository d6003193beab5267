"""Runs a kernel: all threads of many blocks in lock step, the group with the lowest program counter first.

A group is a set of threads at one instruction. A branch on which they disagree splits it; groups that meet become one.
Since the group that is furthest behind runs first, threads that parted come together where their paths join. What a
warp or a block does together waits for those that are missing; if nothing else can run and they never come, that is a
fault. Blocks do not communicate, so many run at once, and numpy works on all of their threads.
"""

from collections.abc import Sequence

import numpy as np

from bench.ptx.counts import Counts
from bench.ptx.faults import NOT_REACHED, OUT_OF_BOUNDS, Fault, Violation
from bench.ptx.memory import Memory
from bench.ptx.operands import Lanes
from bench.ptx.program import Program, Step
from bench.ptx.shared import SharedMemory
from bench.ptx.warps import WARP, complete, present

LANES = 8192  # threads at once: more leaves the cache


def launch(
    program: Program, grid: int, block: int, parameters: bytes, memory: Memory, shared: int = 0,
    blocks: Sequence[int] | None = None, counting: bool = False,
) -> Counts:  # fmt: skip
    """Run `block` threads in each of `grid` blocks (or only in those whose numbers `blocks` lists), along one axis.

    parameters: the kernel's, laid out as its PTX declares them; shared: bytes of dynamic shared memory. Raises Fault at
    the first thing the kernel does wrong. The counts hold instructions and, if `counting`, traffic as well.
    """
    kernel = program.kernel
    if block % WARP or not 0 < block <= 1024:
        raise ValueError(f"a block must have 32, 64, ... 1024 threads, got {block}")
    if len(parameters) != kernel.parameter_bytes:
        raise ValueError(f"{kernel.name} takes {kernel.parameter_bytes} bytes of parameters, got {len(parameters)}")
    numbers = list(range(grid)) if blocks is None else list(blocks)
    together = max(1, LANES // block)
    counts = Counts(warps=len(numbers) * block // WARP)
    memory.begin_launch()
    with np.errstate(all="ignore"):
        for first in range(0, len(numbers), together):
            some = np.array(numbers[first : first + together], np.uint32)
            Machine(program, grid, block, some, parameters, memory, shared, counts, counting).run()
    memory.end_launch()
    counts.distinct_bytes = sum(memory.distinct_bytes())
    return counts


class Machine:
    """The state of the blocks that run together."""

    def __init__(
        self, program: Program, grid: int, block: int, blocks: np.ndarray, parameters: bytes, memory: Memory,
        shared: int, counts: Counts, counting: bool,
    ):  # fmt: skip
        self.program, self.memory, self.counts, self.counting = program, memory, counts, counting
        self.block, self.blocks, self.threads = block, blocks, block * len(blocks)
        self.registers: list[np.ndarray | None] = [None] * len(program.kernel.registers)
        self.parameters = np.frombuffer(parameters + bytes(-len(parameters) % 8), np.uint8)
        self.shared = SharedMemory(len(blocks), program.kernel.static_shared + shared, block)
        self.everybody = np.arange(self.threads)
        one = np.ones(1, np.uint32)
        self.special = {f"%{name}.{axis}": one * (name[0] == "n") for name in ("tid", "ntid", "ctaid", "nctaid")
                         for axis in "yz"}  # fmt: skip
        self.special |= {
            "%tid.x": np.tile(np.arange(block, dtype=np.uint32), len(blocks)),
            "%ctaid.x": np.repeat(blocks, block),
            "%ntid.x": one * np.uint32(block),
            "%nctaid.x": one * np.uint32(grid),
            "%laneid": (self.everybody % WARP).astype(np.uint32),
        }
        self.groups: dict[int, Lanes] = {0: None}  # program counter -> threads that may run
        self.waiting: dict[int, np.ndarray] = {}  # program counter -> threads that wait there for others
        self.ended = np.zeros(self.threads, bool)

    def numbers(self, lanes: Lanes) -> np.ndarray:
        return self.everybody if lanes is None else lanes

    def run(self) -> None:
        while self.groups or self.waiting:
            if not self.groups:
                self._release()
            self._follow(min(self.groups))
        missing = int(np.count_nonzero(~self.ended))
        assert not missing, f"{missing} threads were lost by the executor"

    def _follow(self, at: int) -> None:
        """Run the group at `at` until it ends, waits, or is no longer the one that is furthest behind."""
        lanes = self.groups.pop(at)
        steps, issued = self.program.steps, self.counts.warp_instructions
        limit = min(self.groups, default=-1)
        warps, size = self._size(lanes)
        while True:
            if at == limit:
                self._join(at, lanes)
                return
            step = steps[at]
            issued[step.kind] += warps
            self.counts.lane_instructions += size
            acting = lanes
            try:
                if step.guard is not None:
                    acting = self._guarded(step, lanes)
                if not step.control:
                    if acting is None or acting.size:
                        step.do(self, acting)
                    at += 1
                    continue
                going = self._control(step, at, lanes, acting)
            except Violation as violation:
                raise self._fault(step, acting, violation) from None
            if going is None:
                return
            at, new = going
            if new is not lanes:
                lanes = new
                warps, size = self._size(lanes)
            limit = min(self.groups, default=-1)
            if -1 < limit < at:
                self._join(at, lanes)
                return

    def _control(self, step: Step, at: int, lanes: Lanes, acting: Lanes) -> tuple[int, Lanes] | None:
        """(program counter, threads) to continue with; None where another group must run."""
        if step.control == "branch":
            return self._branch(step.target, at + 1, lanes, acting)
        if acting is not None and not acting.size:
            return at + 1, lanes
        if step.control == "exit":
            self.ended[self.numbers(acting)] = True
            rest = np.setdiff1d(self.numbers(lanes), self.numbers(acting), assume_unique=True)
            return (at + 1, rest) if rest.size else None
        if acting is not lanes:  # those that the guard excludes continue
            self._join(at + 1, np.setdiff1d(self.numbers(lanes), acting, assume_unique=True))
            lanes = acting
        if step.control == "barrier":
            if lanes is None:
                self.shared.block_barrier(np.arange(len(self.blocks)))
                return at + 1, lanes
            self._wait(at, lanes)
            return None
        return self._with_warp(step, at, lanes)

    def _branch(self, target: int, behind: int, lanes: Lanes, taken: Lanes) -> tuple[int, Lanes]:
        if taken is lanes:
            return target, lanes
        if not taken.size:
            return behind, lanes
        others = np.setdiff1d(self.numbers(lanes), taken, assume_unique=True)
        first, second = sorted([(target, taken), (behind, others)], key=lambda pair: pair[0])
        self._join(*second)
        return first

    def _with_warp(self, step: Step, at: int, lanes: Lanes) -> tuple[int, Lanes] | None:
        """Carry out the step for warps whose members are all here; the others wait."""
        if at in self.waiting:
            lanes = np.union1d(self.numbers(lanes), self.waiting.pop(at))
        masks = np.broadcast_to(step.members(self, lanes), self.numbers(lanes).shape)
        whole = np.ones(self.threads, bool) if lanes is None else complete(lanes, masks)
        outside = masks >> (self.numbers(lanes) % WARP).astype(np.uint32) & 1 == 0
        if outside.any():
            raise Violation(NOT_REACHED, "a lane that the member mask does not name", int(np.flatnonzero(outside)[0]))
        if not whole.all():
            self._wait(at, lanes[~whole])
            lanes = lanes[whole]
            if not lanes.size:
                return None
        step.do(self, lanes)
        return at + 1, lanes

    def _release(self) -> None:
        """Nothing can run: release blocks whose threads all wait at one barrier."""
        for at, lanes in sorted(self.waiting.items()):
            step = self.program.steps[at]
            if step.control == "barrier":
                blocks, arrived = np.unique(lanes // self.block, return_counts=True)
                whole = blocks[arrived == self.block]
                if whole.size:
                    goes = np.isin(lanes // self.block, whole)
                    self.shared.block_barrier(whole)
                    del self.waiting[at]
                    if not goes.all():
                        self.waiting[at] = lanes[~goes]
                    self._join(at + 1, lanes[goes])
                    return
        at, lanes = min(self.waiting.items())
        step = self.program.steps[at]
        if step.control == "barrier":
            inside = np.flatnonzero(lanes // self.block == lanes[0] // self.block)
            detail = f"{inside.size} of {self.block} threads wait at this barrier"
        else:
            warps, there = present(lanes)
            detail = f"lanes {int(there[0]):#010x} of warp {int(warps[0] % (self.block // WARP))} wait for the others"
        raise self._fault(step, lanes, Violation(NOT_REACHED, detail))

    def _wait(self, at: int, lanes: np.ndarray) -> None:
        self.waiting[at] = np.union1d(self.waiting.get(at, lanes), lanes)

    def _join(self, at: int, lanes: Lanes) -> None:
        if at in self.groups:
            lanes = np.union1d(self.numbers(self.groups[at]), self.numbers(lanes))
        self.groups[at] = None if lanes is None or lanes.size == self.threads else lanes

    def _guarded(self, step: Step, lanes: Lanes) -> Lanes:
        true = step.guard(self, lanes) ^ step.negated
        if true.size == 1:
            return lanes if true[0] else self.everybody[:0]
        return lanes if true.all() else self.numbers(lanes)[true]

    def _size(self, lanes: Lanes) -> tuple[int, int]:
        """(warps, threads)"""
        if lanes is None:
            return self.threads // WARP, self.threads
        return 1 + int(np.count_nonzero(np.diff(lanes // WARP))), lanes.size

    def _fault(self, step: Step, lanes: Lanes, violation: Violation) -> Fault:
        lane = int(self.numbers(lanes)[violation.at])
        block, thread = int(self.blocks[lane // self.block]), lane % self.block
        return Fault(self.program.kernel.name, step.instruction, block, thread, violation)

    def load(self, space: str, lanes: Lanes, addresses: np.ndarray, width: int, count: int) -> list[np.ndarray]:
        if space == "param":
            return self._load_parameters(addresses, width, count)
        who = self.numbers(lanes)
        addresses = np.broadcast_to(addresses, who.shape)
        self._count(space, addresses, who, width * count)
        if space == "shared":
            return self.shared.load(addresses, who, width, count)
        return self.memory.load(addresses, width, count)

    def store(self, space: str, lanes: Lanes, addresses: np.ndarray, values: list[np.ndarray], width: int) -> None:
        who = self.numbers(lanes)
        addresses = np.broadcast_to(addresses, who.shape)
        self._count(space, addresses, who, width * len(values))
        if space == "shared":
            self.shared.store(addresses, who, values, width)
        else:
            self.memory.store(addresses, values, width, len(values))

    def _count(self, space: str, addresses: np.ndarray, who: np.ndarray, size: int) -> None:
        if self.counting:
            count = self.counts.count_shared if space == "shared" else self.counts.count_global
            count(addresses, who, size)

    def _load_parameters(self, addresses: np.ndarray, width: int, count: int) -> list[np.ndarray]:
        outside = addresses + np.uint64(width * count) > np.uint64(self.program.kernel.parameter_bytes)
        if outside.any():
            at = int(np.flatnonzero(outside)[0])
            raise Violation(OUT_OF_BOUNDS, f"{width * count} bytes at byte {int(addresses[at])} of the parameters", at)
        index = addresses.astype(np.int64) // width
        return [self.parameters.view(f"u{width}")[index + i] for i in range(count)]
