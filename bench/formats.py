"""Backward passes on a CPU whose gradient arrives in another memory format than the inputs have.

    python -m bench.formats [--size 4 24 128 128] [--samples 9]

Three ways take turns: our ops with the gradient in the inputs' format, our ops with it in the other one, and plain
PyTorch (`use_backend("reference")`) with it in the other one. Times are medians of `torch.autograd.grad`, one thread.
"""

import argparse
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor

import f2d_kernels
from bench.timing import interleaved

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
GROUPS, EXPERTS = 8, 4


class Operands:
    """Operands [B, C, H, W] in one format and dtype, and the small tensors beside them; all require gradients."""

    def __init__(self, size: list[int], dtype: torch.dtype, memory_format: torch.memory_format):
        generator = torch.Generator().manual_seed(0)
        batch, channels, height, width = size

        def rand(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(dtype)

        def image(channels: int = channels) -> Tensor:
            return rand(batch, channels, height, width).to(memory_format=memory_format).requires_grad_()

        self.images = [image() for _ in range(EXPERTS)]
        self.base, self.maps = image(), image(EXPERTS)
        self.gates = rand(batch, EXPERTS).float().requires_grad_()
        self.gain, self.offset = (rand(channels).float().requires_grad_() for _ in range(2))

    def assembled(self) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        return self.images, self.gates, self.maps, self.base


OPS: dict[str, Callable[[Operands], tuple[Tensor, list[Tensor]]]] = {
    "expert_assembly": lambda o: (
        f2d_kernels.expert_assembly(*o.assembled()),
        [*o.images, o.gates, o.maps, o.base],
    ),
    "lognormal_transition": lambda o: (
        f2d_kernels.lognormal_transition(o.base, o.images[0], -0.5, 0.2, seed=1),
        [o.base, o.images[0]],
    ),
    "gaussian_transition": lambda o: (
        f2d_kernels.gaussian_transition(o.images[:3], [0.3, 0.4, 0.5], 0.1, seed=1),
        o.images[:3],
    ),
    "group_norm_silu": lambda o: (
        f2d_kernels.group_norm_silu(o.base, GROUPS, o.gain, o.offset),
        [o.base, o.gain, o.offset],
    ),
    "transport_step": lambda o: (
        f2d_kernels.transport_step(o.images[0], *o.assembled(), -0.5, 0.2, seed=1)[0],
        [*o.images, o.gates, o.maps, o.base],
    ),
}


@contextmanager
def backward(op: str, operands: Operands, memory_format: torch.memory_format, backend: str | None):
    """Provide the backward pass of `op` with a gradient in `memory_format`; the forward pass runs here, untimed."""
    with f2d_kernels.use_backend(backend) if backend else nullcontext():
        result, inputs = OPS[op](operands)
        gradient = torch.ones_like(result).contiguous(memory_format=memory_format)
        yield [partial(torch.autograd.grad, result, inputs, gradient)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=4, default=[4, 24, 128, 128], metavar=("B", "C", "H", "W"))
    parser.add_argument("--samples", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {arguments.size}, one thread, ms: same format, other format, plain PyTorch (other)"
    )
    for dtype in (torch.bfloat16, torch.float32):
        for name, of_inputs in FORMATS.items():
            other = next(found for found in FORMATS.values() if found is not of_inputs)
            for op in OPS:
                operands = Operands(arguments.size, dtype, of_inputs)
                given = {"same": (of_inputs, None), "other": (other, None), "plain": (other, "reference")}
                providers = {key: partial(backward, op, operands, *how) for key, how in given.items()}
                times = interleaved(providers, torch.device("cpu"), arguments.samples, 20)
                cells = " / ".join(f"{times[key].median:6.1f}" for key in given)
                print(f"{op:21}{str(dtype)[6:]:9}{name:14}{cells}", flush=True)


if __name__ == "__main__":
    main()
