"""Prints {case: digest of the bits} of every op on the cpp backend as JSON: run by test_bits.py once per instruction
set and number of threads.

    python tests/kernels/bits.py THREADS
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
    use_backend,
)

BATCH, EXPERTS, FEATURES = 2, 4, 20
# tails of every vector and block; several tiles of 4096 pixels; results large enough to bypass the caches
SIZES = {"small": (5, 7), "tiles": (77, 61), "large": (256, 160)}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def cases() -> Iterator[tuple[str, Callable[..., object], list[Tensor]]]:
    for size, pixels in SIZES.items():
        for dtype in DTYPES if size == "small" else DTYPES[:2]:
            for layout in ("nchw", "nhwc"):
                for channels in (3, 24) if size != "large" else (3,):
                    name = f"{size} {str(dtype)[6:]} {layout} C={channels}"
                    yield from of_shape(name, dtype, layout, channels, pixels)


def of_shape(name: str, dtype: torch.dtype, layout: str, channels: int, size: tuple[int, int]) -> Iterator:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, image: bool = False) -> Tensor:
        values = torch.randn(shape, generator=generator).to(dtype)
        if image and layout == "nhwc":
            values = values.movedim(-3, -1).contiguous().movedim(-1, -3)
        return values.requires_grad_()

    image = (BATCH, channels, *size)
    deltas, maps = draw(BATCH, EXPERTS, *image[1:], image=True), draw(BATCH, EXPERTS, *size)
    gates, channel_gates = draw(BATCH, EXPERTS), draw(BATCH, EXPERTS, channels)
    x, base = draw(*image, image=True), draw(*image, image=True)
    log_mean, log_std = (draw(BATCH).detach().float().requires_grad_() for _ in range(2))
    yield f"assembly {name}", expert_assembly, [deltas, gates, maps, base]
    yield f"assembly per channel {name}", lambda d, g, m: expert_assembly(d, g, m), [deltas, channel_gates, maps]
    yield f"transition {name}", lambda *a: lognormal_transition(*a, seed=3, window=(2, 5)), [x, base, log_mean, log_std]
    yield (
        f"transport {name}",
        lambda *a: transport_step(*a, seed=3, stream=1),
        [x, deltas, gates, maps, base, log_mean, log_std],
    )
    yield (
        f"gaussian {name}",
        lambda x, y, c, s: gaussian_transition([x, y], c, s, seed=4),
        [x, base, draw(BATCH, 2), log_std],
    )
    features = draw(BATCH, EXPERTS, FEATURES, *size, image=True)
    head = [draw(EXPERTS, channels, FEATURES), draw(EXPERTS, channels), draw(BATCH, EXPERTS, FEATURES)]
    yield f"head {name}", expert_head, [features, *head, gates, maps, base]
    norm = [draw(channels) for _ in range(2)] + [draw(BATCH, channels) for _ in range(2)]
    yield (
        f"norm {name}",
        lambda x, *rest: group_norm_silu(x, 3, *rest, return_mean=True),
        [x, *norm],
    )


def digest(call: Callable[..., object], arguments: list[Tensor]) -> str:
    for argument in arguments:
        argument.grad = None
    out = call(*arguments)
    outputs = out if isinstance(out, tuple) else (out,)
    sum((o.float() if o.dtype != torch.float64 else o).square().sum() for o in outputs).backward()
    total = hashlib.sha256()
    for tensor in (*outputs, *(a.grad for a in arguments)):
        total.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    with use_backend("cpp"):
        print(json.dumps({name: digest(call, arguments) for name, call, arguments in cases()}))


if __name__ == "__main__":
    main()
