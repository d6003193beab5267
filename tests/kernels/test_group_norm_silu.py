"""group_norm_silu on every backend against float64, by KERNELS.md's error rule, and what it promises PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from f2d_kernels import compiled, group_norm_silu

from .cases import DEVICE, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, lay_out, random
from .support import running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula

ROOT = Path(__file__).parents[2]
OPS = torch.ops.f2d_kernels
NAMES = ["x", "weight", "bias", "scale", "shift"]
BACKENDS = ["reference", "cpp", "triton"]
SWEEP = ["reference", "cpp", pytest.param("triton", marks=() if torch.cuda.is_available() else pytest.mark.slow)]


def two_pass(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """F.group_norm in float64 without its own rounding: PyTorch's subtracts squares."""
    grouped = x.unflatten(1, (groups, -1))
    centred = grouped - grouped.mean((2, 3, 4), keepdim=True)
    n = (centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
    n = n if weight is None else n * weight[:, None, None]
    return n if bias is None else n + bias[:, None, None]


def formula(x: Tensor, groups: int, weight, bias, scale, shift, norm=two_pass) -> tuple[Tensor, Tensor]:
    """The formula as models write it, in the dtype of the arguments, and its spatial mean."""
    y = norm(x, groups, weight, bias)
    if scale is not None:
        y = y * (1 + scale[..., None, None])
    if shift is not None:
        y = y + shift[..., None, None]
    out = F.silu(y)
    return out, out.mean((2, 3))


def plain_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    weight = torch.ones_like(bias) if weight is None and bias is not None else weight  # it takes both or neither
    return F.group_norm(x, groups, weight, bias)


def inputs(batch, channels, size, dtype, *, layout="contiguous", ratio=0.0, seed=0) -> list[Tensor | None]:
    """x of standard deviation 1 around `ratio`, and the four parameters."""
    x = random(batch, channels, *size, seed=seed).add(ratio).to(dtype)
    shapes = [(channels,), (channels,), (batch, channels), (batch, channels)]
    parameters = [random(*shape, seed=seed + 1 + i, dtype=dtype) for i, shape in enumerate(shapes)]
    return [lay_out(x, layout), *parameters]


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


def double_inputs() -> list[Tensor]:
    return [a.double().requires_grad_() for a in inputs(2, 4, (1, 3), torch.float32)]


@pytest.mark.parametrize("backend", SWEEP)
def test_gradcheck(backend):
    x, *parameters = double_inputs()
    fast = backend == "triton"  # one random direction instead of each element: interpreted, a backward pass takes 0.5 s
    with running_on(backend):
        assert torch.autograd.gradcheck(
            lambda x, *rest: group_norm_silu(x, 2, *rest, return_mean=True), (x, *parameters), fast_mode=fast
        )
        assert torch.autograd.gradcheck(lambda x: group_norm_silu(x, 2, None, None), (x,), fast_mode=fast)


def opcheck_samples():
    x, *parameters = [a.requires_grad_() for a in inputs(2, 4, (3, 5), torch.float32)]
    yield OPS.group_norm_silu.default, (x, 2, *parameters, 1e-5, True)
    yield OPS.group_norm_silu.default, (x.detach().bfloat16(), 4, None, None, None, parameters[3], 1e-5, False)
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    yield OPS.group_norm_silu.default, (last, 1, *parameters[:2], None, None, 0.0, True)
    detached = [a.detach() for a in (x, *parameters)]
    statistics = [torch.zeros(2, 2, dtype=torch.float64, device=DEVICE) + value for value in (0.0, 1.0)]
    arguments = (detached[0], detached[3], *statistics, *detached, False, [True] * 5, "auto")
    yield OPS.group_norm_silu_backward.default, arguments


@pytest.mark.parametrize("index", range(4))
def test_opcheck(index):
    op, arguments = list(opcheck_samples())[index]
    torch.library.opcheck(op, arguments)


def squeeze_excite(x, weight, bias, scale, shift):
    out, mean = group_norm_silu(x, 2, weight, bias, scale, shift, return_mean=True)
    return (out * torch.sigmoid(mean)[..., None, None]).square().sum()


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_compiles_as_one_graph_with_dynamic_shapes_without_recompiling(backend):
    compilations = 0

    def count(graph, example_inputs):
        nonlocal compilations
        compilations += 1
        return graph

    step = torch.compile(squeeze_excite, fullgraph=True, dynamic=True, backend=count)
    with running_on(backend):
        for size in ((8, 12), (5, 7), (33, 16), (16, 31)):
            arguments = inputs(2, 4, size, torch.float32)
            assert torch.equal(step(*arguments), squeeze_excite(*arguments))
    assert compilations == 1


def test_compiled_gradients_through_inductor_equal_eager():
    eager, again = ([a.requires_grad_() for a in inputs(2, 4, (6, 7), torch.float32)] for _ in range(2))
    squeeze_excite(*eager).backward()
    torch.compile(squeeze_excite, fullgraph=True)(*again).backward()
    for a, b in zip(eager, again, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_export_keeps_the_op_whole():
    class Step(torch.nn.Module):
        def forward(self, *arguments):
            return squeeze_excite(*arguments)

    arguments = tuple(inputs(2, 4, (6, 7), torch.float32))
    program = torch.export.export(Step(), arguments)
    assert "f2d_kernels.group_norm_silu.default" in {str(node.target) for node in program.graph.nodes}
    assert torch.equal(program.module()(*arguments), squeeze_excite(*arguments))


def test_activation_checkpointing_gives_the_same_gradients():
    plain, again = ([a.requires_grad_() for a in inputs(2, 4, (6, 7), torch.float32)] for _ in range(2))
    squeeze_excite(*plain).backward()
    checkpoint(squeeze_excite, *again, use_reentrant=False).backward()
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a.grad, b.grad)


def test_vmap_equals_a_loop():
    x, *parameters = inputs(2, 4, (6, 7), torch.float32)
    mapped, means = torch.func.vmap(lambda v: group_norm_silu(v, 2, *parameters, return_mean=True))(
        torch.stack([x, 2 * x])
    )
    out, mean = group_norm_silu(2 * x, 2, *parameters, return_mean=True)
    assert torch.equal(mapped[1], out) and torch.equal(means[1], mean)


def test_second_derivatives_are_an_error_that_says_so():
    x, *parameters = double_inputs()
    (gradient,) = torch.autograd.grad(group_norm_silu(x, 2, *parameters).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="group_norm_silu_backward: second derivatives"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (4,), (0, 3), (1, 4)])
def test_any_subset_of_gradients(backend, wanted):
    full, part = ([a.clone() for a in inputs(2, 4, (5, 7), torch.float32)] for _ in range(2))
    for i in range(5):
        full[i].requires_grad_()
        part[i].requires_grad_(i in wanted)
    with running_on(backend):
        squeeze_excite(*full).backward()
        squeeze_excite(*part).backward()
    for i, (a, b) in enumerate(zip(full, part, strict=True)):
        assert (b.grad is not None) == (i in wanted)
        if i in wanted:
            assert torch.equal(b.grad, a.grad)


def test_the_normalised_tensor_is_not_saved():
    """The backward pass keeps x and two numbers per group, of everything that is as large as x."""
    saved = []
    x, *parameters = [a.requires_grad_() for a in inputs(2, 4, (16, 16), torch.float32)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        group_norm_silu(x, 2, *parameters, return_mean=True)
    large = [t for t in saved if t.numel() >= x.numel()]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]
    assert sum(t.shape == (2, 2) for t in saved) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_dtype_and_memory_format(backend):
    x, *parameters = inputs(2, 4, (5, 7), torch.float32)
    with running_on(backend):
        out, mean = group_norm_silu(
            x.bfloat16().contiguous(memory_format=torch.channels_last), 2, *parameters, return_mean=True
        )
        assert out.dtype == mean.dtype == torch.bfloat16 and out.is_contiguous(memory_format=torch.channels_last)
        assert group_norm_silu(x, 2, *(p.double() for p in parameters)).dtype == torch.float32
        assert group_norm_silu(lay_out(x, "sliced"), 2, *parameters).is_contiguous()


@pytest.mark.parametrize("shape", [(0, 4, 3, 5), (2, 4, 0, 5), (2, 0, 3, 5)])
def test_empty_inputs_give_empty_results_and_zero_gradients(shape):
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    weight = torch.randn(shape[1], device=DEVICE, requires_grad=True)
    shift = torch.randn(shape[:2], device=DEVICE, requires_grad=True)
    out = group_norm_silu(x, 2, weight, None, None, shift)
    out.sum().backward()
    assert out.shape == shape
    for leaf in (x, weight, shift):
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


THREADS = """
import sys, torch
from f2d_kernels import use_backend
from f2d_kernels import group_norm_silu
torch.manual_seed(0)
results = []
for shape, groups in (((1, 6, 70, 67), 3), ((3, 16, 33, 31), 4)):
    for dtype in (torch.float32, torch.bfloat16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = (torch.randn(shape) * 3 + 1).to(dtype).contiguous(memory_format=memory_format)
            channels = shape[1]
            rest = [torch.randn(s) for s in ((channels,), (channels,), (shape[0], channels), (shape[0], channels))]
            leaves = [a.requires_grad_() for a in (x, *rest)]
            for threads in (1, 2, 4):
                torch.set_num_threads(threads)
                with use_backend("cpp"):
                    out, mean = group_norm_silu(leaves[0], groups, *leaves[1:], return_mean=True)
                    g = torch.autograd.grad([out, mean], leaves, [torch.ones_like(out) * 0.7, torch.ones_like(mean)])
                results.append([out.detach(), mean.detach(), *g])
torch.save(results, sys.argv[1])
"""


def test_same_bits_for_every_instruction_set_and_thread_count(tmp_path):
    """1, 2 and 4 threads, by groups or by tiles, on each instruction set this machine has, each in its own process."""
    if compiled.load_cpu() is not None:
        pytest.skip(compiled.load_cpu())
    info = compiled.build_info()
    levels = info["simd"][: info["simd"].index(info["simd_in_use"]) + 1]
    results = {}
    for level in levels:
        path = tmp_path / f"{level}.pt"
        environment = {**os.environ, "F2D_KERNELS_SIMD": level, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", THREADS, path], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results[level] = torch.load(path)
    for level in levels:
        for i, tensors in enumerate(results[level]):
            for actual, expected in zip(tensors, results[levels[-1]][i // 3 * 3], strict=True):
                assert torch.equal(actual, expected), f"{level}, case {i}"


X, P, S = torch.zeros(2, 4, 3, 5), torch.zeros(4), torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: group_norm_silu(X[0, 0], 2, P, P), ValueError, r"x must be \[B,C,H,W\] or \[B,C,L\], got \[3, 5\]"),
        (lambda: group_norm_silu(X.long(), 2, P, P), TypeError, "x must be float16"),
        (lambda: group_norm_silu(None, 2, P, P), TypeError, "x must be a tensor, got NoneType"),
        (lambda: group_norm_silu(X, 3, P, P), ValueError, "num_groups must be a divisor of the 4 channels of x, got 3"),
        (lambda: group_norm_silu(X, 0, P, P), ValueError, "num_groups must be a divisor"),
        (lambda: group_norm_silu(X, 2.0, P, P), TypeError, "num_groups must be a whole number, got float"),
        (lambda: group_norm_silu(X, 2, P[:3], P), ValueError, r"weight must be \[C\] = \[4\], got \[3\]"),
        (lambda: group_norm_silu(X, 2, P, S), ValueError, r"bias must be \[C\] = \[4\], got \[2, 4\]"),
        (lambda: group_norm_silu(X, 2, P, P, P), ValueError, r"scale must be \[B,C\] = \[2, 4\], got \[4\]"),
        (lambda: group_norm_silu(X, 2, P, P, None, S[:1]), ValueError, r"shift must be \[B,C\] = \[2, 4\]"),
        (lambda: group_norm_silu(X, 2, P, P, 1.0), TypeError, "scale must be a tensor, got float"),
        (lambda: group_norm_silu(X, 2, P.to("meta"), P), ValueError, "weight is on meta"),
        (lambda: group_norm_silu(X, 2, P, P, eps=-1e-5), ValueError, "eps must be at least 0"),
        (lambda: group_norm_silu(X, 2, P, P, eps="0"), TypeError, "eps must be a number, got str"),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(call, error, message):
    with pytest.raises(error, match=f"group_norm_silu: {message}"):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE]:
        for channels, groups in ((1, 1), (3, 3), (31, 31), (48, 8), (64, 4)) if backend != "triton" else ((6, 2),):
            for layout in LAYOUTS:
                check(backend, inputs(2, channels, size, dtype, layout=layout), groups)
