"""group_norm_silu on every backend against float64, by KERNELS.md's error rule."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from f2d_kernels import group_norm_silu

from .cases import DEVICE, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, lay_out, random
from .group_norm_cases import BACKENDS, SWEEP, formula, inputs, two_pass
from .support import running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula

NAMES = ["x", "weight", "bias", "scale", "shift"]


def plain_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    weight = torch.ones_like(bias) if weight is None and bias is not None else weight  # it takes both or neither
    return F.group_norm(x, groups, weight, bias)


def magnitudes(arguments: list[Tensor | None], groups: int, grad: Tensor, grad_mean: Tensor) -> dict[str, float]:
    """What cancels in each result: its rounding error goes with these sizes, not with what is left of them."""
    x, weight, bias, scale, shift = (None if a is None else a.detach().double() for a in arguments)
    n = two_pass(x, groups, None, None)
    gain = torch.ones_like(x[0, :, :1, :1]) if weight is None else weight[:, None, None]
    normed = n * gain + (0.0 if bias is None else bias[:, None, None])
    factor = torch.ones_like(n) if scale is None else 1 + scale[..., None, None]
    u = normed * factor + (0.0 if shift is None else shift[..., None, None])
    q = torch.sigmoid(u)
    d_u = (grad.double() + grad_mean.double()[..., None, None] / u[0, 0].numel()) * q * (1 + u * (1 - q))
    groups_of_x = x.unflatten(1, (groups, -1))
    rstd = (groups_of_x.var((2, 3, 4), correction=0, keepdim=True) + 1e-5).rsqrt()
    n_size = n.abs() + (groups_of_x * rstd).flatten(1, 2).abs()  # of x and the mean before they are subtracted
    line = (gain * factor).unflatten(1, (groups, -1)) * rstd
    per_sample = {"shift": d_u, "scale": d_u * (normed.abs() + gain.abs() * n_size)}
    shared = {"bias": d_u * factor, "weight": d_u * factor * n_size}
    sizes = {name: value.flatten(2).norm(dim=2).max().item() for name, value in per_sample.items()}
    sizes |= {name: value.transpose(0, 1).flatten(1).norm(dim=1).max().item() for name, value in shared.items()}
    moved = (line * groups_of_x).abs().max().item()
    return sizes | {"out": moved, "mean": moved, "x": (line.flatten(1, 2) * d_u * (1 + n_size)).abs().max().item()}


def check(backend: str, arguments: list[Tensor | None], groups: int) -> None:
    """Both results and every gradient on `backend`; float64 is the truth, plain PyTorch at the same dtype the yardstick
    (float32 or float64 where PyTorch has none)."""
    x = arguments[0]
    grad = random(*x.shape, seed=98, dtype=x.dtype)  # rounded once, so that all three are given the same
    grad_mean = (random(*x.shape[:2], seed=99) * x.shape[2] * x.shape[3]).to(x.dtype)
    mixed = len({a.dtype for a in arguments if a is not None}) > 1
    plain_dtype = torch.float32 if mixed or x.dtype == torch.float16 else None
    results = {}
    for name, dtype in (("exact", torch.float64), ("plain", plain_dtype), ("kernel", None)):
        leaves = [None if a is None else a.detach().to(dtype or a.dtype).requires_grad_() for a in arguments]
        if name == "kernel":
            with running_on(backend):
                out, mean = group_norm_silu(leaves[0], groups, *leaves[1:], return_mean=True)
                torch.autograd.backward([out, mean], [grad, grad_mean])
        else:
            out, mean = formula(leaves[0], groups, *leaves[1:], norm=two_pass if name == "exact" else plain_norm)
            torch.autograd.backward([out, mean], [grad.to(out.dtype), grad_mean.to(mean.dtype)])
        results[name] = [out.detach(), mean.detach(), *(None if leaf is None else leaf.grad for leaf in leaves)]
    sizes = magnitudes(arguments, groups, grad, grad_mean)
    for name, actual, plain, exact in zip(
        ["out", "mean", *NAMES], *(results[k] for k in ("kernel", "plain", "exact")), strict=True
    ):
        if exact is not None:
            factor = FORWARD if name in ("out", "mean") else BACKWARD
            assert_close_as_formula(actual, plain.to(actual.dtype), exact, factor, name, sizes[name])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes(backend, dtype, layout):
    check(backend, inputs(2, 6, (15, 17), dtype, layout=layout), groups=3)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("size", [*SIZES, LARGE_SIZE], ids=str)
def test_sizes(backend, size):
    check(backend, inputs(2, 4, size, torch.float32), groups=2)
    check(backend, inputs(1, 4, size, torch.bfloat16, layout="channels_last"), groups=1)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 3), (31, 1), (48, 8), (64, 8), (40, 2), (512, 32)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_channels_and_groups(backend, channels, groups, layout):
    check(backend, inputs(2, channels, (4, 9), torch.float32, layout=layout), groups)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_several_tiles_with_a_short_last_one(backend, layout):
    """More pixels than one tile of every backend holds."""
    check(backend, inputs(1, 2, (97, 131), torch.float32, layout=layout), groups=1)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("absent", [(1,), (2,), (1, 2), (3,), (4,), (3, 4), (1, 2, 3, 4)])
def test_absent_parameters(backend, absent):
    arguments = inputs(2, 4, (5, 7), torch.float32)
    check(backend, [None if i in absent else a for i, a in enumerate(arguments)], groups=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_dtypes(backend):
    x, weight, bias, scale, shift = inputs(2, 4, (5, 7), torch.float32)
    check(backend, [x.bfloat16(), weight, bias.double(), scale.bfloat16(), shift], groups=2)
    check(backend, [x, weight.half(), bias, scale.bfloat16(), shift.bfloat16()], groups=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("ratio", [1e3, -1e3, 3e4])
def test_the_mean_may_be_many_standard_deviations(backend, layout, ratio):
    """Right to 2e-6, where PyTorch's float32 group_norm is off by 1e-4; sums of x² would lose everything."""
    arguments = inputs(2, 4, (33, 41), torch.float32, layout=layout, ratio=ratio)
    grad = random(*arguments[0].shape, seed=9) + (arguments[0] - ratio)  # so that Σ d_n n is not near zero
    exact_leaves = [a.double().requires_grad_() for a in arguments]
    exact, exact_mean = formula(exact_leaves[0], 2, *exact_leaves[1:])
    torch.autograd.backward([exact, exact_mean], [grad.double(), torch.ones_like(exact_mean)])
    leaves = [a.detach().requires_grad_() for a in arguments]
    with running_on(backend):
        out, mean = group_norm_silu(leaves[0], 2, *leaves[1:], return_mean=True)
        torch.autograd.backward([out, mean], [grad, torch.ones_like(mean)])
    torch.testing.assert_close(out.double(), exact, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=2e-6, atol=2e-6)
    for leaf, exact_leaf in zip(leaves, exact_leaves, strict=True):
        size = exact_leaf.grad.abs().max().item()
        torch.testing.assert_close(leaf.grad.double(), exact_leaf.grad, rtol=0, atol=5e-6 * size)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_an_outlier_at_the_start_does_not_spoil_the_variance(backend, layout):
    """A shift by the first value would square (1e4)² and drown the rest."""
    x = random(1, 2, 65, 67, seed=0)
    x[0, 0, 0, 0] = 1e4
    x = lay_out(x, layout)
    with running_on(backend):
        out = group_norm_silu(x, 1, None, None)
    exact, _ = formula(x.double(), 1, None, None, None, None)
    torch.testing.assert_close(out.double(), exact, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_silu_has_the_right_limits(backend, dtype):
    """|u| from 0 to beyond where exp overflows: 0 on the left, u on the right, and gradients 0 and 1."""
    values = torch.tensor([0.0, 1e-30, 20.0, 86.9, 87.1, 88.8, 150.0, 720.0, 1e30], dtype=dtype, device=DEVICE)
    u = torch.cat([values, -values])
    shift = u[None].clone().requires_grad_()
    with running_on(backend):
        out = group_norm_silu(torch.zeros(1, u.numel(), 1, 1, dtype=dtype, device=DEVICE), 1, None, None, None, shift)
        out.sum().backward()
    exact = u.double().requires_grad_()
    F.silu(exact).sum().backward()
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-13}[dtype]
    torch.testing.assert_close(out.flatten().double(), F.silu(exact).detach(), rtol=tolerance, atol=1e-30)
    torch.testing.assert_close(shift.grad.flatten().double(), exact.grad, rtol=tolerance, atol=1e-30)


@pytest.mark.parametrize("backend", BACKENDS)
def test_not_a_number_stays_in_its_group(backend):
    x = random(2, 4, 5, 7, seed=0)
    x[1, 2, 3, 4] = float("nan")
    with running_on(backend):
        out = group_norm_silu(x, 2, None, None)
    assert out[1, 2:].isnan().all() and not out[0].isnan().any() and not out[1, :2].isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_group_is_its_bias(backend):
    """Variance 0: eps alone is under the root, and nothing of the constant is left."""
    x = torch.full((1, 4, 9, 11), 1234.567, device=DEVICE)
    bias = random(4, seed=1)
    with running_on(backend):
        out = group_norm_silu(x, 2, None, bias)
    torch.testing.assert_close(out, F.silu(bias)[None, :, None, None].expand_as(out), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_dimensions(backend):
    x, *parameters = inputs(2, 4, (1, 9), torch.float32)
    with running_on(backend):
        out, mean = group_norm_silu(x.squeeze(2), 2, *parameters, return_mean=True)
        four, four_mean = group_norm_silu(x, 2, *parameters, return_mean=True)
    assert torch.equal(out, four.squeeze(2)) and torch.equal(mean, four_mean)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_a_sum_arrives_expanded(backend):
    arguments = inputs(2, 4, (5, 6), torch.float32)
    with running_on(backend):
        leaves = [a.detach().requires_grad_() for a in arguments]
        group_norm_silu(leaves[0], 2, *leaves[1:]).sum().backward()
    exact = [a.double().requires_grad_() for a in arguments]
    formula(exact[0], 2, *exact[1:])[0].sum().backward()
    for leaf, truth in zip(leaves, exact, strict=True):
        torch.testing.assert_close(leaf.grad.double(), truth.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE]:
        for channels, groups in ((1, 1), (3, 3), (31, 31), (48, 8), (64, 4)) if backend != "triton" else ((6, 2),):
            for layout in LAYOUTS:
                check(backend, inputs(2, channels, size, dtype, layout=layout), groups)
