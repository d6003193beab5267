"""What the executor refuses: each fault with its kind, the kernel, the line of its PTX, the block and the thread."""

import numpy as np
import pytest

from bench.ptx import faults
from bench.ptx.bits import UnknownInstruction
from bench.ptx.faults import Fault

from .running import aligned, kernel, run

AT_LANE = "mul.wide.u32 %d2, %r0, 4;\nadd.s64 %d3, %d0, %d2;\nadd.s64 %d4, %d1, %d2;\n"
SLOT = "mov.b32 %r1, smem;\nmad.lo.s32 %r2, %r0, 4, %r1;\n"
NEXT = "add.s32 %r3, %r0, 1;\nand.b32 %r3, %r3, 63;\nmad.lo.s32 %r3, %r3, 4, %r1;\n"  # the slot of the next thread

FAULTS = {  # name -> (kind, the thread that is named, body)
    "behind the end": (faults.OUT_OF_BOUNDS, 16, AT_LANE + "add.s64 %d3, %d3, 192;\nld.global.b32 %r1, [%d3];"),
    "before the begin": (faults.OUT_OF_BOUNDS, 0, AT_LANE + "st.global.b32 [%d4+-4], %r0;"),
    "vectors where elements would fit": (
        faults.OUT_OF_BOUNDS, 32, AT_LANE + "add.s64 %d3, %d3, %d2;\nld.global.v2.b32 {%r1, %r2}, [%d3];",
    ),
    "an odd address": (faults.MISALIGNED, 0, AT_LANE + "ld.global.b32 %r1, [%d3+2];"),
    "a vector at half its size": (faults.MISALIGNED, 1, AT_LANE + "ld.global.v2.b32 {%r1, %r2}, [%d3];"),
    "never written": (faults.NEVER_WRITTEN, 0, AT_LANE + "ld.global.b32 %r1, [%d4];"),
    "an input": (faults.WRITE_TO_INPUT, 0, AT_LANE + "st.global.b32 [%d3], %r0;"),
    "shared, never written": (faults.NEVER_WRITTEN, 0, SLOT + "ld.shared.b32 %r3, [%r2];"),
    "shared, behind the end": (faults.OUT_OF_BOUNDS, 64, SLOT + "st.shared.b32 [%r2+256], %r0;"),
    "read before the barrier": (faults.RACE, 0, SLOT + NEXT + "st.shared.b32 [%r2], %r0;\nld.shared.b32 %r4, [%r3];"),
    "written after it was read": (
        faults.RACE, 0,
        SLOT + NEXT + "st.shared.b32 [%r2], %r0;\nbar.sync 0;\nld.shared.b32 %r4, [%r3];\nst.shared.b32 [%r2], %r4;",
    ),
    "two values for one place": (faults.RACE, 0, SLOT + "st.shared.b32 [%r1], %r0;"),
    "a barrier of the warp alone": (
        faults.RACE, 31, SLOT + NEXT + "st.shared.b32 [%r2], %r0;\nbar.warp.sync -1;\nld.shared.b32 %r4, [%r3];",
    ),
    "a barrier that some pass by": (
        faults.NOT_REACHED, 0, "setp.ge.u32 %p0, %r0, 40;\n@%p0 bra $on;\nbar.sync 0;\n$on:",
    ),
    "a barrier after some have left": (faults.NOT_REACHED, 32, "setp.lt.u32 %p0, %r0, 32;\n@%p0 ret;\nbar.sync 0;"),
    "a shuffle that one passes by": (
        faults.NOT_REACHED, 0, "setp.eq.u32 %p0, %r0, 7;\n@%p0 bra $on;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;\n$on:",
    ),
    "a shuffle of a lane that takes no part": (
        faults.NOT_REACHED, 1, "setp.ge.u32 %p0, %r0, 2;\n@%p0 bra $on;\nshfl.sync.bfly.b32 %r1, %r0, 2, 31, 3;\n$on:",
    ),
    "division by zero": (faults.DIVISION_BY_ZERO, 5, "sub.s32 %r1, %r0, 5;\ndiv.s32 %r2, 1, %r1;"),
    "a register nobody wrote": (faults.UNSET_REGISTER, 0, AT_LANE + "st.global.b32 [%d4], %r2;"),
    "a branch on what nobody wrote": (faults.UNSET_REGISTER, 0, "@%p3 bra $on;\n$on:"),
}  # fmt: skip
# where the named thread is any of several, or the order among lanes decides it
ANY_THREAD = {"a shuffle of a lane that takes no part": 0, "two values for one place": 0}


def start(body: str, block: int = 64) -> None:
    inside, out = aligned(np.arange(64, dtype=np.uint32)), aligned(np.zeros(64, np.uint32))
    run(kernel(body, 2, "faulty"), inside, out, grid=2, block=block, shared=256)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_with_its_place(name):
    kind, thread, body = FAULTS[name]
    if "behind the end" in name and "shared" in name:
        body, thread = body.replace("+256", "+4"), 63
    with pytest.raises(Fault) as caught:
        start(body)
    fault = caught.value
    text = kernel(body, 2, "faulty")
    assert (fault.kind, fault.kernel, fault.block) == (kind, "faulty", 0)
    assert fault.thread == ANY_THREAD.get(name, thread)
    wanted = fault.instruction.text.split()[0]
    assert text.splitlines()[fault.instruction.line - 1].strip().startswith(wanted)
    assert f"PTX line {fault.instruction.line}" in str(fault) and f"thread {fault.thread}" in str(fault)


@pytest.mark.parametrize("body", [
    SLOT + NEXT + "st.shared.b32 [%r2], %r0;\nbar.sync 0;\nld.shared.b32 %r4, [%r3];\nbar.sync 0;\n"
                  "st.shared.b32 [%r2], %r4;",
    SLOT + "st.shared.b32 [%r1], 5;\nbar.sync 0;\nld.shared.b32 %r3, [%r1];",  # all write one value
    SLOT + "st.shared.b32 [%r2], %r0;\nxor.b32 %r3, %r0, 1;\nmad.lo.s32 %r3, %r3, 4, %r1;\nbar.warp.sync -1;\n"
           "ld.shared.b32 %r4, [%r3];",
    "setp.ge.u32 %p0, %r0, 40;\n@%p0 bra $on;\nadd.s32 %r1, %r0, 1;\n$on:\nbar.sync 0;",
    "setp.lt.u32 %p0, %r0, 32;\n@%p0 bra $one;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;\n$one:",
    "setp.ge.u32 %p0, %r0, 2;\n@%p0 bra $on;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, 3;\n$on:",
])  # fmt: skip
def test_what_is_right_passes(body):
    if ", 3;" in body and "shfl" in body:  # the mask names lanes 0 and 1 of the first warp alone
        start(body, 32)
    else:
        start(body)


def test_unknown_instructions_are_refused_and_not_guessed():
    with pytest.raises(UnknownInstruction, match=r"ex2\.approx\.f32"):
        start("ex2.approx.f32 %r1, %r0;")


def test_freed_memory_is_forgotten():
    """An allocation at the address of an older one replaces it, and was never written."""
    from bench.ptx.memory import Memory

    memory, room = Memory(), aligned(np.ones(64, np.uint8))
    memory.add("old", room.ctypes.data, room, written=True, writable=True)
    memory.add("new", room.ctypes.data, room[:32], written=False, writable=True)
    assert [a.name for a in memory.allocations] == ["new"]
    with pytest.raises(faults.Violation, match=faults.NEVER_WRITTEN):
        memory.load(np.array([room.ctypes.data], np.uint64), 4)
    with pytest.raises(faults.Violation, match=faults.OUT_OF_BOUNDS):
        memory.load(np.array([room.ctypes.data + 32], np.uint64), 4)
