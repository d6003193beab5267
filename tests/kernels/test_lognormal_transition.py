"""lognormal_transition on every backend against float64, by KERNELS.md's error rule."""

import pytest
import torch
from torch import Tensor

from f2d_kernels import lognormal_transition
from f2d_kernels.reference.philox import normal

from .cases import CHANNELS, DEVICE, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, lay_out, random
from .support import ALL_BACKENDS, SWEEP_BACKENDS, running_on
from .tolerances import BACKWARD, FORWARD, NORMAL, assert_close_as_formula

NAMES = ["x", "mu", "log_mean", "log_std", "noise"]


def formula(x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    z = log_mean.view(-1, 1, 1, 1) + log_std.view(-1, 1, 1, 1) * noise
    return mu + (x - mu) * torch.exp(z.clamp(-20, 20))


def inputs(batch, channels, size, dtype, *, layout="contiguous", seed=0):
    x, mu, noise = (lay_out(random(batch, channels, *size, seed=seed + i, dtype=dtype), layout) for i in range(3))
    log_mean = (-1.5 * random(batch, seed=seed + 3).abs()).to(dtype)
    log_std = (0.5 * random(batch, seed=seed + 4).abs()).to(dtype)
    return [x, mu, log_mean, log_std, noise]


def check(backend: str, arguments: list[Tensor]) -> None:
    dtype = torch.promote_types(arguments[0].dtype, arguments[1].dtype)
    grad = random(*arguments[0].shape, seed=99, dtype=dtype)  # rounded once, so that all three are given the same
    results = {}
    for name, dtype in (("exact", torch.float64), ("plain", None), ("kernel", None)):
        leaves = [a.detach().to(dtype or a.dtype).requires_grad_() for a in arguments]
        if name == "kernel":
            with running_on(backend):
                out = lognormal_transition(*leaves[:4], noise=leaves[4])
                out.backward(grad.to(out.dtype))
        else:
            out = formula(*leaves)
            out.backward(grad.to(out.dtype))
        results[name] = [out.detach(), *(leaf.grad for leaf in leaves)]
    # d_noise is the summand of d_log_mean times log_std, and times eps that of d_log_std
    summands = results["exact"][5] / arguments[3].double().view(-1, 1, 1, 1)
    scales = {"log_mean": summands.norm().item(), "log_std": (summands * arguments[4].double()).norm().item()}
    for name, actual, plain, exact in zip(
        ["out", *NAMES], *(results[k] for k in ("kernel", "plain", "exact")), strict=True
    ):
        factor = FORWARD if name == "out" else BACKWARD
        assert_close_as_formula(actual, plain, exact, factor, name, scales.get(name, 0.0))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes(backend, dtype, layout):
    check(backend, inputs(2, 3, (15, 17), dtype, layout=layout))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("size", [*SIZES, LARGE_SIZE], ids=str)
def test_sizes(backend, size):
    check(backend, inputs(2, 3, size, torch.float32))
    check(backend, inputs(1, 3, size, torch.bfloat16, layout="channels_last"))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_channel_counts(backend, channels, layout):
    check(backend, inputs(1, channels, (4, 9), torch.float32, layout=layout))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_mixed_dtypes(backend):
    x, mu, log_mean, log_std, noise = inputs(2, 3, (9, 5), torch.float32)
    check(backend, [x, mu.bfloat16(), log_mean, log_std, noise.half()])
    check(backend, [x.bfloat16(), mu.bfloat16(), log_mean.double(), log_std, noise])


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_seeded_equals_its_own_noise_forward_and_backward(backend, layout, dtype):
    """A seed gives what the noise tensor of KERNELS.md's generator gives, in every gradient too."""
    arguments = inputs(2, 3, (9, 13), dtype, layout=layout)[:4]
    seed = torch.tensor([0x123456789ABCDEF], device=DEVICE)
    noise = normal(arguments[0].shape, seed, 3, 5, 6)
    grad = random(*arguments[0].shape, seed=99, dtype=dtype)
    exact_leaves = [a.double().requires_grad_() for a in arguments]
    exact = formula(*exact_leaves, noise)
    exact.backward(grad.double())
    plain_leaves = [a.detach().requires_grad_() for a in arguments]
    plain = formula(*plain_leaves, noise.to(dtype))
    plain.backward(grad.to(plain.dtype))
    leaves = [a.detach().requires_grad_() for a in arguments]
    with running_on(backend):
        out = lognormal_transition(*leaves, seed=0x123456789ABCDEF, stream=3, window=(5, 6))
        out.backward(grad.to(out.dtype))
    slack = 1 + NORMAL * 10  # a noise error of 2e-6 moves every result by less than 2e-5 of its size
    assert_close_as_formula(out.detach(), plain * slack, exact.detach(), FORWARD, "out")
    for name, leaf, plain_leaf, exact_leaf in zip(NAMES[:4], leaves, plain_leaves, exact_leaves, strict=True):
        assert_close_as_formula(leaf.grad, plain_leaf.grad * slack, exact_leaf.grad, BACKWARD, name)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exponent_is_clamped_and_then_has_no_gradient(backend, dtype):
    x, mu = torch.ones(1, 1, 1, 3, dtype=dtype, device=DEVICE), torch.zeros(1, 1, 1, 3, dtype=dtype, device=DEVICE)
    noise = torch.tensor([-50.0, 0.0, 50.0], dtype=dtype, device=DEVICE).view(1, 1, 1, 3).requires_grad_()
    log_mean = torch.zeros(1, dtype=dtype, device=DEVICE, requires_grad=True)
    with running_on(backend):
        out = lognormal_transition(x, mu, log_mean, torch.ones(1, dtype=dtype, device=DEVICE), noise=noise)
        out.sum().backward()
    expected = torch.tensor([-20.0, 0.0, 20.0], dtype=torch.float64).exp()
    torch.testing.assert_close(out.flatten().double().cpu(), expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(noise.grad.flatten().cpu(), torch.tensor([0.0, 1.0, 0.0], dtype=dtype))
    torch.testing.assert_close(log_mean.grad.cpu(), torch.ones(1, dtype=dtype))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_small_steps_keep_their_digits(backend):
    """At z = 1e-4, d_mu = g (1 - f) is right to 2e-6 of itself; 1 - exp(z) in float32 would be off by 6e-4."""
    x = torch.ones(1, 1, 4, 8, device=DEVICE)
    mu = torch.zeros_like(x).requires_grad_()
    with running_on(backend):
        lognormal_transition(x, mu, 1e-4, 0.0, noise=torch.zeros_like(x)).sum().backward()
    exact = -torch.expm1(torch.full_like(mu, 1e-4).double())
    torch.testing.assert_close(mu.grad.double(), exact.detach(), rtol=2e-6, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE]:
        for channels in CHANNELS if backend != "triton" else (1, 3, 31):
            for layout in LAYOUTS:
                check(backend, inputs(2, channels, size, dtype, layout=layout))
