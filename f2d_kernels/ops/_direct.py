"""The fast path from a public function to the C++ kernels, for calls in which Python has nothing to decide.

A call on plain CPU tensors, outside every mode, transform and trace of PyTorch, goes to one compiled op, `{op}_direct`,
which checks the arguments, allocates the result and fills it. It declines every call that is not plainly valid. The
public function then takes the general path, whose checks explain errors and whose dispatch serves all other calls. On a
tensor of 128 elements, group_norm_silu takes 7 us on the fast path and 32 us on the general one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import (
    _are_functorch_transforms_active,
    _is_tracing,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

from f2d_kernels.noise import MAX_STREAM
from f2d_kernels.ops import _allocate
from f2d_kernels.registry import runs_on_cpp

_PLAIN = frozenset({Tensor, Parameter})


def differentiated(required: Sequence[Any], *optional: Any) -> bool | None:
    """Return whether autograd records a call on these tensors, or None if the call must take the general path."""
    if (
        is_dynamo_compiling()
        or _are_functorch_transforms_active()
        or _len_torch_dispatch_stack()
        or _len_torch_function_stack()
        or _is_tracing()
        or forward_ad._current_level >= 0
        or _allocate.new_memory is not torch.empty  # tests look at every result before it is filled
        or not runs_on_cpp()
    ):
        return None
    for tensor in required:
        if type(tensor) not in _PLAIN or not tensor.is_cpu:
            return None
    for tensor in optional:  # if one is elsewhere, the compiled op declines
        if tensor is not None and type(tensor) not in _PLAIN:
            return None
    # inside inference mode enable_grad turns the flag on, but PyTorch records nothing
    recording = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    return recording and torch._C._any_requires_grad(*required, *optional)


def number_or_tensor(value: Any) -> tuple[Tensor | None, float] | None:
    """Return (tensor, 0) or (None, number), as compiled ops take a schedule value; None for anything else."""
    if type(value) is float or (type(value) is int and abs(value) < 2**63):
        return None, value
    return (value, 0.0) if isinstance(value, Tensor) else None


def seed_or_tensor(seed: Any) -> tuple[Tensor | None, int] | None:
    """Return (tensor, 0) or (None, 64-bit seed), (None, 0) without a seed; None for anything else."""
    if type(seed) is int:
        if not -(2**63) <= seed < 2**64:
            return None
        return None, seed - 2**64 if seed >= 2**63 else seed
    return (seed, 0) if seed is None or isinstance(seed, Tensor) else None


def in_stream(noise: Any, seed: Any, generator: Any, stream: Any, window: Any) -> bool:
    """Return whether there is one source of noise, a tensor or a seed, and a plain stream."""
    return (
        (noise is None) is not (seed is None)
        and generator is None
        and window is None
        and type(stream) is int
        and 0 <= stream <= MAX_STREAM
    )
