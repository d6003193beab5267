"""One group norm and SiLU by size, fused by `accelerate` and plain: where its size rule should lie."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from f2d_kernels import accelerate
from f2d_kernels.fusing.pairs import at_any_size

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = (
    (64, 16),
    (64, 32),
    (128, 32),
    (64, 64),
    (128, 64),
    (64, 128),
    (64, 256),
)  # channels, side: 2**14 to 2**22 elements


def pair_rows(rounds: int) -> Iterator[list[str]]:
    """Yield ratios of this thread's CPU time; the versions run in turns, so that other load affects both alike."""
    for dtype in DTYPES:
        for layout in LAYOUTS:
            for channels, side in SIZES:
                x = torch.randn(1, channels, side, side).to(DTYPES[dtype], memory_format=LAYOUTS[layout])
                forward = ratio(channels, x, rounds, train=False)
                both = ratio(channels, x, rounds, train=True)
                yield [dtype, layout, f"2^{x.numel().bit_length() - 1}", f"{forward:.2f}x", f"{both:.2f}x"]


def ratio(channels: int, x: Tensor, rounds: int, train: bool) -> float:
    """Return the plain layers' time divided by the op's, the median over the rounds."""
    pair, fused = (nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU()).to(x.dtype) for _ in range(2))
    accelerate(fused)
    grad, repeats = torch.randn_like(x), max(1, 2**20 // x.numel())
    found = []
    for i in range(rounds + 1):
        turns = (pair, fused) if i % 2 else (fused, pair)
        with at_any_size():
            times = {net: seconds(partial(call, net, x, grad, train), repeats) for net in turns}
        found.append(times[pair] / times[fused])
    return median(found[1:])


def call(net: nn.Module, x: Tensor, grad: Tensor, train: bool) -> None:
    with torch.set_grad_enabled(train):
        out = net(x.detach().requires_grad_(train))
    if train:
        out.backward(grad)


def seconds(run: Callable[[], None], repeats: int) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        run()
    return time.thread_time() - start
