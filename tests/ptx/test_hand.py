"""The executor against results computed by hand from the PTX ISA: one file of PTX per class of instruction."""

import re
from pathlib import Path

import numpy as np
import pytest

from bench.ptx import floats
from bench.ptx.parser import parse

from .running import aligned, kernel, run

HAND = sorted((Path(__file__).parent / "hand").glob("*.ptx"))
EXPECTED = re.compile(r"st\.global\.b(\d+) \[%out\+(\d+)\], %\w+;\s*// = (0x[0-9a-f]+)")


@pytest.mark.parametrize("path", HAND, ids=lambda path: path.stem)
def test_instructions(path):
    text = path.read_text()
    expected = EXPECTED.findall(text)
    assert len(expected) == text.count("// = ") >= 12
    out = aligned(np.full(len(expected), 0, np.uint64))
    run(text, out)
    for line, (bits, place, value) in zip([x for x in text.splitlines() if "// = " in x], expected, strict=True):
        found = int(out.view(np.uint8)[int(place) :][: int(bits) // 8].view(f"u{int(bits) // 8}")[0])
        assert found == int(value, 16), f"{found:#x}: {line}"


def test_the_files_cover_what_the_executor_knows():
    """Every instruction class of the table of meanings occurs in a file."""
    from bench.ptx.instructions import _TABLE

    opcodes = {i.opcode for path in HAND for k in parse(path.read_text()).values() for i in k.instructions}
    unused = [pattern for pattern, _ in _TABLE if not any(re.fullmatch(pattern, opcode) for opcode in opcodes)]
    assert unused == [r"mul\.(?:rn\.)?(b?f16(?:x2)?)", r"cvta(?:\.to)?\.(?:global|shared|param)\.(u64)"]


LANES = np.arange(32, dtype=np.uint32)
SHUFFLES = {  # the lane that each lane reads
    "shfl.sync.bfly.b32 %r2, %r1, 5, 31, -1;": LANES ^ 5,
    "shfl.sync.up.b32 %r2, %r1, 3, 0, -1;": np.where(LANES >= 3, LANES - 3, LANES),
    "shfl.sync.down.b32 %r2, %r1, 3, 31, -1;": np.where(LANES < 29, LANES + 3, LANES),
    "shfl.sync.idx.b32 %r2, %r1, 7, 31, -1;": np.full(32, 7),
    # segments of 8 lanes: the mask of c is 0x18
    "shfl.sync.idx.b32 %r2, %r1, 2, 6175, -1;": LANES // 8 * 8 + 2,
    "shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;": LANES ^ 1,
}


@pytest.mark.parametrize("instruction", SHUFFLES)
def test_shuffles(instruction):
    out = aligned(np.zeros(32, np.uint32))
    run(kernel(f"mul.lo.s32 %r1, %r0, 3;\n{instruction}\nmul.wide.u32 %d2, %r0, 4;\nadd.s64 %d2, %d0, %d2;\n"
               "st.global.b32 [%d2], %r2;", 1), out)  # fmt: skip
    assert np.array_equal(out, 3 * SHUFFLES[instruction])


def test_a_shuffle_says_whether_its_source_lay_inside():
    out = aligned(np.zeros(32, np.uint32))
    run(kernel("shfl.sync.up.b32 %r2|%p0, %r0, 3, 0, -1;\nselp.b32 %r2, 1, 0, %p0;\nmul.wide.u32 %d2, %r0, 4;\n"
               "add.s64 %d2, %d0, %d2;\nst.global.b32 [%d2], %r2;", 1), out)  # fmt: skip
    assert np.array_equal(out, LANES >= 3)


@pytest.mark.parametrize(("how", "result"), [("min.s32", -16), ("max.s32", 15), ("min.u32", 0)])
def test_reductions_of_a_warp(how, result):
    out = aligned(np.zeros(32, np.int32))
    run(kernel(f"sub.s32 %r1, %r0, 16;\nredux.sync.{how} %r2, %r1, -1;\nmul.wide.u32 %d2, %r0, 4;\n"
               "add.s64 %d2, %d0, %d2;\nst.global.b32 [%d2], %r2;", 1), out)  # fmt: skip
    assert (out == result).all()


MATRIX = (
    "mov.b32 %r1, smem;\nshl.b32 %r2, %r0, 4;\nadd.s32 %r3, %r1, %r2;\n"
    "mul.wide.u32 %d2, %r0, 16;\nadd.s64 %d2, %d0, %d2;\n"
)


@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_from_shared_memory(transposed):
    """Element (row, column) of matrix j is 64 j + 8 row + column; lane t gets elements 2 (t % 4) and the next one of
    row t / 4 (of column t / 4 where the matrices are transposed)."""
    out = aligned(np.zeros((32, 4, 2), np.uint16))
    fill = "".join(f"mad.lo.s32 %r{10 + i}, %r0, 524296, {(2 * i + 1) << 16 | 2 * i};\n" for i in range(4))
    how = ".trans" if transposed else ""
    run(kernel(MATRIX + fill + "st.shared.v4.b32 [%r3], {%r10, %r11, %r12, %r13};\nbar.warp.sync -1;\n"
               f"ldmatrix.sync.aligned.m8n8.x4{how}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r3];\n"
               "st.global.v4.b32 [%d2], {%r4, %r5, %r6, %r7};", 1), out, shared=512)  # fmt: skip
    for lane in range(32):
        for matrix in range(4):
            for half in range(2):
                row, column = lane // 4, 2 * (lane % 4) + half
                row, column = (column, row) if transposed else (row, column)
                assert out[lane, matrix, half] == 64 * matrix + 8 * row + column


def test_matrices_to_shared_memory():
    """stmatrix writes what ldmatrix reads: row 8 j + i of 16 bytes at the address of lane 8 j + i."""
    out = aligned(np.zeros((32, 8), np.uint16))
    words = "".join(f"mad.lo.s32 %r{10 + i}, %r0, 65537, {(1000 * i + 500) << 16 | 1000 * i};\n" for i in range(4))
    run(kernel(MATRIX + words + "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r3], {%r10, %r11, %r12, %r13};\n"
               "bar.warp.sync -1;\nld.shared.v4.b32 {%r4, %r5, %r6, %r7}, [%r3];\n"
               "st.global.v4.b32 [%d2], {%r4, %r5, %r6, %r7};", 1), out, shared=512)  # fmt: skip
    for row in range(32):
        for column in range(8):
            lane = row % 8 * 4 + column // 2
            assert out[row, column] == 1000 * (row // 8) + lane + 500 * (column % 2)


def test_threads_that_part_meet_again():
    """Lane t runs a loop t % 5 times, then all of them shuffle: the sum of what two neighbours counted."""
    out = aligned(np.zeros(64, np.uint32))
    run(kernel("""
        rem.u32 %r1, %r0, 5;
        mov.b32 %r2, 0;
        mov.b32 %r3, 0;
        $again:
        setp.ge.u32 %p0, %r2, %r1;
        @%p0 bra $done;
        add.s32 %r3, %r3, 10;
        add.s32 %r2, %r2, 1;
        bra.uni $again;
        $done:
        shfl.sync.bfly.b32 %r4, %r3, 1, 31, -1;
        add.s32 %r4, %r4, %r3;
        mul.wide.u32 %d2, %r0, 4;
        add.s64 %d2, %d0, %d2;
        st.global.b32 [%d2], %r4;""", 1), out, block=64)  # fmt: skip
    lanes = np.arange(64)
    assert np.array_equal(out, 10 * (lanes % 5) + 10 * ((lanes ^ 1) % 5))


def test_fused_multiply_add_against_fractions():
    """Random operands, cancellation and subnormals among them, against exact rational arithmetic."""
    rng = np.random.default_rng(0)
    for kind, fma in ((np.float32, floats.fma32), (np.float64, floats.fma64)):
        bits = 8 * np.dtype(kind).itemsize
        a, b, c = (rng.integers(0, 2**bits, 2000, dtype=f"u{bits // 8}").view(kind) for _ in range(3))
        with np.errstate(all="ignore"):
            a[::2], b[::2] = rng.standard_normal((2, 1000))
            c[::2] = -(a[::2] * b[::2])
            found = fma(a, b, c)
            finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
            exact = np.array([floats._exact_fma(*map(float, v)) for v in zip(a[finite], b[finite], c[finite])])
        found = found[finite]
        if kind == np.float64:
            assert np.array_equal(found, exact)
        else:  # the nearest float32, to within what rounding the exact value to float64 first may add
            fits = np.isfinite(found)
            step = np.spacing(np.abs(found[fits])).astype(np.float64)
            assert (np.abs(found[fits] - exact[fits]) <= step * (0.5 + 2**-29)).all()
            assert (np.abs(exact[~fits]) >= 2.0**128 - 2.0**103).all()
