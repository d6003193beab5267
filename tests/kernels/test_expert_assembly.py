"""expert_assembly on every backend against float64, by KERNELS.md's error rule."""

import pytest
import torch
from torch import Tensor

from f2d_kernels import expert_assembly

from .cases import CHANNELS, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, lay_out, random
from .support import ALL_BACKENDS, SWEEP_BACKENDS, running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula


def formula(deltas: Tensor, gates: Tensor, maps: Tensor | None, base: Tensor | None) -> Tensor:
    """base + Σ_k gates · maps · deltas by broadcasting, in the dtype of the arguments."""
    weights = gates.reshape(*gates.shape[:2], -1, 1, 1)
    if maps is not None:
        weights = weights * maps[:, :, None]
    total = (weights * deltas).sum(1)
    return total if base is None else base + total


def inputs(batch, experts, channels, size, dtype, *, shared=False, per_channel=False, layout="contiguous", seed=0):
    deltas = random(1 if shared else batch, experts, channels, *size, seed=seed, dtype=dtype)
    gates = random(*((batch, experts, channels) if per_channel else (batch, experts)), seed=seed + 1, dtype=dtype)
    maps = random(batch, experts, *size, seed=seed + 2, dtype=dtype)
    base = random(batch, channels, *size, seed=seed + 3, dtype=dtype)
    return [lay_out(deltas, layout), gates, lay_out(maps, layout if layout != "channels_last" else "contiguous"),
            lay_out(base, layout)]  # fmt: skip


def check(backend: str, arguments: list[Tensor | None], *, sequence: bool = False, seed: int = 9) -> None:
    """Forward and every gradient on `backend`; float64 is the truth, plain PyTorch at the same dtype the yardstick."""
    stack, gate, _, base = arguments
    result_dtype = stack.dtype if base is None else torch.promote_types(stack.dtype, base.dtype)
    # rounded once, so that all three are given the same
    grad = random(gate.shape[0], *stack.shape[-3:], seed=seed, dtype=result_dtype)
    results = {}
    for name, dtype in (("exact", torch.float64), ("plain", None), ("kernel", None)):
        leaves = [None if a is None else a.detach().to(dtype or a.dtype).requires_grad_() for a in arguments]
        if name == "kernel":
            # a detached tensor keeps its strides, so the kernel sees the layout under test
            with running_on(backend):
                deltas = [d.detach().requires_grad_() for d in leaves[0].unbind(1)] if sequence else leaves[0]
                out = expert_assembly(deltas, *leaves[1:])
                out.backward(grad.to(out.dtype))
            gradients = [torch.stack([d.grad for d in deltas], 1) if sequence else deltas.grad]
            gradients += [None if leaf is None else leaf.grad for leaf in leaves[1:]]
        else:
            out = formula(*leaves)
            out.backward(grad.to(out.dtype))
            gradients = [None if leaf is None else leaf.grad for leaf in leaves]
        results[name] = [out.detach(), *gradients]
    names = ["out", "d_deltas", "d_gates", "d_maps", "d_base"]
    # d_gates[b,k] sums map·delta·grad over the image: the norm of one such set of summands
    weighted = arguments[0].double() * (1.0 if arguments[2] is None else arguments[2].double()[:, :, None])
    summands = (weighted * grad.double()[:, None]).flatten(2).norm(dim=2).max().item()
    for name, actual, plain, exact in zip(names, results["kernel"], results["plain"], results["exact"], strict=True):
        if exact is not None:
            factor, scale = (FORWARD, 0.0) if name == "out" else (BACKWARD, summands if name == "d_gates" else 0.0)
            assert_close_as_formula(actual, plain, exact, factor, name, scale)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes(backend, dtype, layout):
    check(backend, inputs(2, 4, 3, (15, 17), dtype, layout=layout))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("size", [*SIZES, LARGE_SIZE], ids=str)
def test_sizes(backend, size):
    check(backend, inputs(2, 3, 3, size, torch.float32))
    check(backend, inputs(1, 3, 3, size, torch.bfloat16, layout="channels_last"))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("experts", range(1, 9))
def test_expert_counts_stacked_and_as_a_sequence(backend, experts):
    arguments = inputs(2, experts, 3, (5, 9), torch.float32)
    check(backend, arguments)
    check(backend, arguments, sequence=True)


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_channel_counts(backend, channels, layout):
    check(backend, inputs(1, 2, channels, (4, 9), torch.float32, layout=layout))
    check(backend, inputs(1, 2, channels, (4, 9), torch.bfloat16, layout=layout, per_channel=True))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("with_maps", [False, True])
@pytest.mark.parametrize("with_base", [False, True])
def test_argument_forms(backend, shared, per_channel, with_maps, with_base):
    deltas, gates, maps, base = inputs(3, 4, 3, (6, 7), torch.float32, shared=shared, per_channel=per_channel)
    check(backend, [deltas, gates, maps if with_maps else None, base if with_base else None])


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_mixed_dtypes(backend):
    deltas, gates, maps, base = inputs(2, 3, 3, (9, 5), torch.float32)
    check(backend, [deltas.bfloat16(), gates, maps.half(), base])
    check(backend, [deltas.bfloat16(), gates.double(), maps, base.bfloat16()])


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
def test_more_experts_than_one_pass_holds(backend):
    check(backend, inputs(1, 19, 2, (3, 7), torch.float32))
    check(backend, inputs(1, 19, 2, (3, 7), torch.float32), sequence=True)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_gradient_of_a_sum_arrives_expanded(backend):
    """out.sum().backward() hands the kernel a gradient of stride 0."""
    with running_on(backend):
        arguments = [a.requires_grad_() for a in inputs(2, 3, 3, (5, 6), torch.float32)]
        expert_assembly(*arguments).sum().backward()
    deltas, gates, maps, _ = arguments
    torch.testing.assert_close(deltas.grad, (gates[..., None, None] * maps)[:, :, None].expand_as(deltas).detach())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE]:
        for channels in CHANNELS if backend != "triton" else (1, 3, 31):
            for experts in (1, 2, 5, 8):
                for layout in LAYOUTS:
                    check(backend, inputs(1, experts, channels, size, dtype, layout=layout))
