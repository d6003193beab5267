"""Recognise group norms and SiLUs, and define the call that replaces a pair of them."""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from f2d_kernels.fusing.source import Unprovable, source_of
from f2d_kernels.ops.group_norm_silu import group_norm_silu

PLAIN_TENSORS = (Tensor, nn.Parameter)
_ANY_SIZE = ContextVar("f2d_kernels_fuse_at_any_size", default=False)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def silu_of_norm(
    activation: Callable, norm: Callable, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
) -> Tensor:
    """``activation(norm(x))``, or ``activation(norm(x) * (1 + scale) + shift)``, in one op if the result is the same.

    The op is used if norm is a group norm and activation is a SiLU (or an nn.Sequential that begins with one), neither
    has hooks, and the op gives the modules' result for these shapes and types. Otherwise, and if x is too small for the
    op to be faster, the modules are called.
    """
    following = after_silu(activation) if _gains(x) else None
    if following is not None and is_group_norm(norm):
        found = _fused(norm, x, scale, shift)
        if found is not None:
            for layer in following:
                found = layer(found)
            return found
    out = norm(x)
    return activation(out if scale is None else out * (1 + scale) + shift)


def _gains(x: Any) -> bool:
    """Whether the op is faster than the modules. A compiler and a tracer see more in the modules, and only CPUs and
    GPUs have kernels of the op.

    With fewer elements the op's host time outweighs what it saves, and that of its gradients more so. One pair on one
    core ran 0.6 to 1.1 times as fast below these sizes, 1.02 to 1.44 times from them on without gradients, and 0.93 to
    2.95 times with them (`python -m bench.integrations --only pairs`). Threads divide the work, but not the host time.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in PLAIN_TENSORS:
        return False
    if not x.is_cpu or _ANY_SIZE.get():
        return x.is_cpu or x.is_cuda
    planes = x.element_size() == 2 and x.dim() > 2 and x.stride(1) != 1
    least = 2**17 if not torch.is_grad_enabled() else 2**21 if planes else 2**19
    return x.numel() >= least * torch.get_num_threads()


@contextmanager
def at_any_size() -> Iterator[None]:
    """Fuse pairs for any size of x inside the block, so that results can be compared on a small sample."""
    before = _ANY_SIZE.set(True)
    try:
        yield
    finally:
        _ANY_SIZE.reset(before)


def _fused(norm: Any, x: Tensor, scale: Any, shift: Any) -> Tensor | None:
    """Return the op's result, or None if it would differ from the modules'."""
    # transforms of torch.func may ask for what the op lacks
    if torch._C._are_functorch_transforms_active() or x.dim() not in (3, 4) or x.shape[1] != norm.num_channels:
        return None
    weight, bias = norm.weight, norm.bias  # nn.Module looks each of them up anew
    if any(p is not None and type(p) not in PLAIN_TENSORS for p in (weight, bias)):
        return None
    layout = _memory_format(x)
    if x.numel() == 0 or layout is None:
        return None
    dtype = _result_type(norm, weight, x)
    if dtype is None:
        return None
    if scale is not None:
        scale, shift = (_per_channel(v, x, dtype) for v in (scale, shift))
        if scale is None or shift is None:
            return None
    x = x.contiguous(memory_format=layout)  # F.group_norm copies such an x too
    return group_norm_silu(x.to(dtype), norm.num_groups, weight, bias, scale, shift, float(norm.eps))


def _memory_format(x: Tensor) -> torch.memory_format | None:
    """Return the memory format of the result of ``F.group_norm(x)``; None if one channel or pixel makes it ambiguous.

    It is at::Tensor::suggest_memory_format on a CPU, contiguous elsewhere. For one sample, torch calls strides such as
    those of ``x.permute(2, 3, 0, 1)`` contiguous, although the channels lie next to each other.
    """
    if x.dim() == 3:
        return None if x.shape[2] == 1 else torch.contiguous_format
    _, channels, height, width = x.shape
    if channels == 1 or height * width == 1:
        return None
    by_sample, by_channel, by_row, by_column = x.stride()
    channels_last = (
        x.is_cpu
        and by_channel > 0
        and by_column >= by_channel * channels
        and by_row >= by_column * width
        and by_sample >= by_row * height
    )
    return torch.channels_last if channels_last else torch.contiguous_format


def _result_type(norm: nn.GroupNorm, weight: Tensor | None, x: Tensor) -> torch.dtype | None:
    """The dtype of norm(x); None where PyTorch would refuse, or where we do not know."""
    given, own = x.dtype, x.dtype if weight is None else weight.dtype
    if type(norm).forward is not nn.GroupNorm.forward:  # statistics in float32, result as x
        return given if own == torch.float32 or weight is None else None
    autocast = torch.is_autocast_enabled(x.device.type)
    if own != given and not (autocast and own == torch.float32 and given in (torch.float16, torch.bfloat16)):
        return None
    return _under_autocast(x.device.type, given) if autocast else given


@cache
def _under_autocast(device: str, dtype: torch.dtype) -> torch.dtype:
    """Return the result dtype of group_norm under autocast, which is enabled: float32 on CUDA, `dtype` on the CPU."""
    return F.group_norm(torch.ones(1, 2, 2, dtype=dtype, device=device), 1).dtype


def _per_channel(value: Any, x: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return [B or 1,C,1,1] as [B,C]; None for other shapes and types."""
    if type(value) not in PLAIN_TENSORS or value.dtype != dtype or value.dim() != x.dim():
        return None
    batch, channels = x.shape[:2]
    if value.shape[0] not in (1, batch) or value.shape[1] != channels or value.numel() != value.shape[0] * channels:
        return None
    return value.flatten(1).expand(batch, channels)


def calls_plainly(module: Any) -> bool:
    """Return whether calling `module` only calls its class's forward: no hooks, no forward set on the instance."""
    if "forward" in module.__dict__ or any(getattr(module, name) for name in HOOKS):
        return False
    return not torch_module._has_any_global_hook()


def is_group_norm(value: Any) -> bool:
    """Return whether `value` is an nn.GroupNorm, or its common subclass that computes in float32 for any input."""
    return isinstance(value, nn.GroupNorm) and has_known_forward(type(value)) and calls_plainly(value)


def has_known_forward(kind: type[nn.GroupNorm]) -> bool:
    return kind.forward is nn.GroupNorm.forward or _is_float32_norm(kind)


def after_silu(value: Any) -> list[Callable] | None:
    """Return the layers that `value` calls after its leading SiLU: [] for a SiLU, the rest of an nn.Sequential.

    None if it does not begin with a SiLU.
    """
    if isinstance(value, nn.Module):
        if not calls_plainly(value):
            return None
        # a part of an accelerated nn.Sequential has the class of the whole
        if getattr(type(value), "_plain", type(value)).forward is nn.Sequential.forward:
            first, *others = value or [None]
            return None if isinstance(first, nn.Sequential) or after_silu(first) is None else others
        return [] if type(value).forward is nn.SiLU.forward or _returns_silu(type(value).forward) else None
    return [] if value is F.silu or _returns_silu(value) else None


def single_return(function: Any) -> tuple[list[str], ast.expr] | None:
    """Return (names of the arguments, returned expression) of a function that is a single return; None for others."""
    try:
        tree = source_of(function)
    except Unprovable:
        return None
    body = [s for s in tree.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        return None
    return [a.arg for a in tree.args.args], body[0].value


@cache
def _returns_silu(function: Any) -> bool:
    """Return whether a function (method) returns ``x * sigmoid(x)`` or ``silu(x)`` of its first (second) argument."""
    found = single_return(function)
    if found is None or not found[0]:
        return False
    x = found[0][-1]
    if found[0] not in ([x], ["self", x]):
        return False

    def named(node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id not in (*found[0], *function.__code__.co_freevars):
            return function.__globals__.get(node.id)
        return getattr(named(node.value), node.attr, None) if isinstance(node, ast.Attribute) else None

    def is_x(node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == x

    def is_call(node: ast.expr, *functions: Any) -> bool:
        return (
            isinstance(node, ast.Call)
            and not node.keywords
            and len(node.args) == 1
            and is_x(node.args[0])
            and any(named(node.func) is f for f in functions)
        )

    def is_sigmoid(node: ast.expr) -> bool:
        method = isinstance(node, ast.Call) and ast.unparse(node) == f"{x}.sigmoid()"
        return method or is_call(node, torch.sigmoid, F.sigmoid)

    value = found[1]
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        return (is_x(value.left) and is_sigmoid(value.right)) or (is_x(value.right) and is_sigmoid(value.left))
    return is_call(value, F.silu)


@cache
def _is_float32_norm(kind: type[nn.GroupNorm]) -> bool:
    """Return whether forward is ``super().forward(x.float()).type(x.dtype)``, with nn.GroupNorm's forward."""
    found = single_return(kind.forward)
    owner = next((c for c in kind.__mro__ if "forward" in c.__dict__), None)
    if found is None or len(found[0]) != 2 or owner is None:
        return False
    above = kind.__mro__[kind.__mro__.index(owner) + 1 :]
    parent = next((c for c in above if "forward" in c.__dict__), None)
    x, text = found[0][1], ast.unparse(found[1])
    return parent is nn.GroupNorm and text in (
        f"super().forward({x}.float()).type({x}.dtype)",
        f"super().forward({x}.float()).to({x}.dtype)",
    )
