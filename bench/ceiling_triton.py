"""The ceiling loop on a GPU, in its own module so that triton is imported only where it runs."""

import torch
import triton
import triton.language as tl

BLOCK = 2048


@triton.jit
def _sweep(source, target, read_length, write_length, READS: tl.constexpr, WRITES: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.int32)
    for r in tl.static_range(READS):
        total += tl.load(source + r * read_length + at, mask=at < read_length, other=0)
    for w in tl.static_range(WRITES):
        tl.store(target + w * write_length + at, total, mask=at < write_length)


def sweep(
    source: torch.Tensor, target: torch.Tensor, reads: int, read_lines: int, writes: int, write_lines: int
) -> None:
    """Read `reads` streams and write `writes` streams of int32; the lengths are in lines of 64 bytes."""
    read_length, write_length = read_lines * 16, write_lines * 16
    grid = (triton.cdiv(max(read_length, write_length), BLOCK),)
    _sweep[grid](source, target, read_length, write_length, reads, writes, BLOCK, num_warps=4)
