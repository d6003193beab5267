"""Gradients to the last bit: rounded once, equal on the backends that compute alike, whatever else is asked for."""

from importlib.metadata import version

import pytest
import torch
from torch import Tensor

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
)
from f2d_kernels.registry import REGISTRY

from .cases import DEVICE, random
from .support import ALL_BACKENDS, running_on

BATCH, CHANNELS, SIZE = 2, 3, (6, 16)
IMAGE = (BATCH, CHANNELS, *SIZE)
INF = float("inf")
PRECISION = {torch.bfloat16: (8, -126), torch.float16: (11, -14)}  # significant bits, least exponent
OTHER = 2e-5  # of the largest value: what float32 arithmetic adds to it, far less than a second rounding to 16 bits


def eps(dtype=torch.float32) -> Tensor:
    return random(*IMAGE, seed=9, dtype=dtype)


def schedule() -> tuple[Tensor, Tensor]:
    return torch.tensor([-0.4, 0.1], device=DEVICE), torch.tensor([0.3, 0.5], device=DEVICE)


# (op, formula, leaves): images in the dtype at hand, gates and other small tensors in float32. Formulas are written for
# any dtype, so that autograd gives the exact gradients from float64 leaves.
def assembly(dtype, experts=4):
    deltas, maps, base = (random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(
        [(BATCH, experts, CHANNELS, *SIZE), (BATCH, experts, *SIZE), IMAGE]))  # fmt: skip

    def formula(deltas, gates, maps, base):
        return base + (gates[:, :, None, None, None] * maps[:, :, None] * deltas).sum(1)

    return expert_assembly, formula, [deltas, random(BATCH, experts, seed=5), maps, base]


def transport(dtype, experts=4):
    """Without limits, so that no rounding of mu decides what a clamp lets through."""
    _, formula_of_mu, (deltas, gates, maps, base) = assembly(dtype, experts)
    means, stds = schedule()

    def call(x, *leaves):
        return transport_step(x, *leaves, means, stds, clamp=(-INF, INF), noise=eps())

    def formula(x, *leaves):
        mu = x + formula_of_mu(*leaves)
        z = means.view(-1, 1, 1, 1).to(x.dtype) + stds.view(-1, 1, 1, 1).to(x.dtype) * eps().to(x.dtype)
        return mu + (x - mu) * z.exp(), mu

    return call, formula, [random(*IMAGE, seed=6, dtype=dtype), deltas, gates, maps, base]


def transition(dtype):
    means, stds = schedule()

    def call(x, mu, noise):
        return lognormal_transition(x, mu, means, stds, noise=noise)

    def formula(x, mu, noise):
        z = means.view(-1, 1, 1, 1).to(x.dtype) + stds.view(-1, 1, 1, 1).to(x.dtype) * noise
        return mu + (x - mu) * z.exp()

    return call, formula, [random(*IMAGE, seed=6, dtype=dtype), random(*IMAGE, seed=7, dtype=dtype), eps(dtype)]


def gaussian(dtype):
    _, stds = schedule()

    def call(a, b, coefficients, noise):
        return gaussian_transition([a, b], coefficients, stds, noise=noise)

    def formula(a, b, coefficients, noise):
        c = coefficients[..., None, None, None]
        return c[:, 0] * a + c[:, 1] * b + stds.view(-1, 1, 1, 1).to(a.dtype) * noise

    images = [random(*IMAGE, seed=s, dtype=dtype) for s in (6, 7)]
    return call, formula, [*images, random(BATCH, 2, seed=8), eps(dtype)]


def head(dtype):
    experts, features = 3, 5
    images = [(BATCH, experts, features, *SIZE), (BATCH, experts, *SIZE), IMAGE]
    stacked, maps, base = (random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(images))
    small = [(experts, CHANNELS, features), (experts, CHANNELS), (BATCH, experts, features), (BATCH, experts)]
    weight, bias, scale, gates = (random(*shape, seed=i) for i, shape in enumerate(small))

    def formula(features, weight, bias, scale, gates, maps, base):
        deltas = torch.einsum("kcf,bkfhw->bkchw", weight, scale[..., None, None] * features) + bias[..., None, None]
        return base + (gates[:, :, None, None, None] * maps[:, :, None] * deltas).sum(1)

    return expert_head, formula, [stacked, weight, bias, scale, gates, maps, base]


def norm(dtype):
    def formula(x, weight, bias):
        return torch.nn.functional.silu(torch.nn.functional.group_norm(x, 1, weight, bias))

    def call(x, weight, bias):
        return group_norm_silu(x, 1, weight, bias)

    return call, formula, [random(*IMAGE, seed=6, dtype=dtype), random(CHANNELS, seed=1), random(CHANNELS, seed=2)]


OPS = {f.__name__: f for f in (assembly, transport, transition, gaussian, head, norm)}
# more experts than a fused pass of the GPU backends takes
OPS["transport in two passes"] = lambda dtype: transport(dtype, experts=9)


def gradients(function, leaves: list[Tensor], dtype=None, without: tuple[int, ...] = ()) -> list[Tensor | None]:
    leaves = [t.detach().to(dtype or t.dtype).requires_grad_(i not in without) for i, t in enumerate(leaves)]
    outs = function(*leaves)
    outs = outs if isinstance(outs, tuple) else (outs,)
    grads = [random(*IMAGE, seed=20 + i, dtype=leaves[0].dtype if dtype is None else torch.bfloat16) for i in range(2)]
    torch.autograd.backward(outs, [g.to(o.dtype) for g, o in zip(grads, outs, strict=False)])
    return [t.grad for t in leaves]


def half_unit(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Half a unit in the last place of `exact` in `dtype`."""
    bits, least = PRECISION[dtype]
    return torch.exp2(exact.abs().clamp(min=2.0**least).log2().floor() - bits)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("op", OPS)
def test_a_gradient_in_16_bits_is_rounded_once(op, backend):
    """And float32 gradients beside bfloat16 images are as near as float32 sums are."""
    call, formula, leaves = OPS[op](torch.bfloat16)
    with running_on(backend):
        found = gradients(call, leaves)
    for i, (actual, exact) in enumerate(zip(found, gradients(formula, leaves, torch.float64), strict=True)):
        allowed = OTHER * exact.abs().max()
        if actual.dtype in PRECISION:
            allowed = allowed + half_unit(exact, actual.dtype)
        error = (actual.double() - exact).abs()
        far = error > allowed
        assert not far.any(), f"argument {i}: {int(far.sum())} of {far.numel()} are off, by {error[far].max():.3g}"


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("experts", [4, 9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_gradients_do_not_depend_on_what_else_needs_one(dtype, experts, backend):
    call, _, leaves = transport(dtype, experts)
    with running_on(backend):
        every = gradients(call, leaves)
        for without in ((4,), (0,), (0, 4), (2, 3), (1,)):
            for i, (a, b) in enumerate(zip(gradients(call, leaves, without=without), every, strict=True)):
                assert (i in without) == (a is None)
                assert a is None or torch.equal(a, b), f"argument {i} changes without {without}"


# Arguments whose gradients, no sums over channels or pixels, take the same float32 operations in C++ and in Triton.
ALIKE = {"assembly": (0,), "transport": (0, 1, 4), "transition": (0, 1, 2), "gaussian": (0, 1, 3)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("op", ALIKE)
def test_cpp_and_triton_agree_bit_for_bit(op, dtype):
    """In Triton's interpreter. The reference computes what PyTorch's operators do, and agrees on plain products."""
    for backend in ("cpp", "triton"):
        if (missing := REGISTRY[backend].unavailable(DEVICE)) is not None:
            pytest.skip(f"{backend}: {missing}")
    if tuple(int(v) for v in version("triton").split(".")[:2]) < (3, 9):
        pytest.skip("the interpreter of older Triton rounds an fma twice")
    call, _, leaves = OPS[op](dtype)
    found, results = {}, {}
    for backend in ("cpp", "triton", "reference"):
        with running_on(backend):
            outs = call(*leaves)
            results[backend] = outs if isinstance(outs, tuple) else (outs,)
            found[backend] = gradients(call, leaves)
    for i, (a, b) in enumerate(zip(results["cpp"], results["triton"], strict=True)):
        assert torch.equal(a, b), f"result {i}: {int((a != b).sum())} of {a.numel()} differ"
    for i in ALIKE[op]:
        for other in ("triton", "reference") if op == "assembly" else ("triton",):
            a, b = found["cpp"][i], found[other][i]
            assert torch.equal(a, b), f"argument {i}, {other}: {int((a != b).sum())} of {a.numel()} differ"
