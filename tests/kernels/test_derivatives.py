"""Derivatives of every op in every mode of PyTorch: against formulas in float64, and against finite differences."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_leaves

from f2d_kernels import accelerate, use_backend

from .cases import DEVICE, random
from .derivative_cases import CASES


def loss_of(function, weights):
    """A scalar of all results of `function`, nonlinear in each, so that mixed second derivatives are not zero."""

    def loss(*inputs):
        results = function(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        return sum((w * r).sin().sum() for w, r in zip(weights, results, strict=False))

    return loss


WEIGHTS = [0.7, 1.3]
SECOND = {
    "hessian": lambda f, n: hessian(f, argnums=n),
    "reverse over reverse": lambda f, n: jacrev(jacrev(f, argnums=n), argnums=n),
    "forward over forward": lambda f, n: jacfwd(jacfwd(f, argnums=n), argnums=n),
    "reverse over forward": lambda f, n: jacrev(jacfwd(f, argnums=n), argnums=n),
}
TRANSFORMS = {
    "grad": lambda f, n: grad(f, argnums=n),
    "jacrev": lambda f, n: jacrev(f, argnums=n),
    "jacfwd": lambda f, n: jacfwd(f, argnums=n),
    "jvp": lambda f, n: lambda *a: jvp(f, a, tuple(t.cos() for t in a)),
    "vjp": lambda f, n: lambda *a: vjp(f, *a)[1](torch.ones((), dtype=a[0].dtype, device=a[0].device)),
    "vmap of grad": lambda f, n: lambda *a: vmap(grad(f, argnums=n))(*(torch.stack([t, t.sin()]) for t in a)),
    "grad of vmap": lambda f, n: (
        lambda *a: grad(lambda *b: vmap(f)(*(torch.stack([t, 0.5 * t]) for t in b)).sum(), n)(*a)
    ),
}


def assert_same(found, expected, case=""):
    found, expected = (tree_leaves(tree) for tree in (found, expected))
    assert any(leaf.abs().max() > 1e-3 for leaf in expected)
    # a kernel's noise differs by 2e-6 from that of the formula
    limits = {"rtol": 1e-4, "atol": 1e-4} if "seed" in case else {"rtol": 1e-9, "atol": 1e-11}
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, **limits)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("case", CASES)
def test_transforms_of_torch_func(case, transform):
    op, formula, _ = CASES[case]
    inputs = CASES[case].inputs()
    argnums = tuple(range(len(inputs)))
    expected = TRANSFORMS[transform](loss_of(formula, WEIGHTS), argnums)(*inputs)
    assert_same(TRANSFORMS[transform](loss_of(op, WEIGHTS), argnums)(*inputs), expected, case)


@pytest.mark.parametrize("transform", SECOND)
@pytest.mark.parametrize("case", ["expert_assembly", "expert_head", "transport_step of a seed", "group_norm_silu"])
def test_second_derivatives_of_torch_func(case, transform):
    """With respect to the first arguments, in every order of the two modes."""
    op, formula, _ = CASES[case]
    inputs, argnums = CASES[case].inputs(), (0, 1)
    expected = SECOND[transform](loss_of(formula, WEIGHTS), argnums)(*inputs)
    assert_same(SECOND[transform](loss_of(op, WEIGHTS), argnums)(*inputs), expected, case)


@pytest.mark.parametrize("case", CASES)
def test_finite_differences_of_forward_mode_and_second_derivatives(case):
    inputs = [t.requires_grad_() for t in CASES[case].inputs()]
    op = CASES[case].op
    assert torch.autograd.gradcheck(op, inputs, check_forward_ad=True, check_backward_ad=False)
    assert torch.autograd.gradgradcheck(op, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("case", CASES)
def test_dual_numbers_carry_every_tangent(case):
    """One argument at a time: what PyTorch does not see as differentiated must not lose its tangent either."""
    op, formula, _ = CASES[case]
    inputs = CASES[case].inputs()
    for i, tensor in enumerate(inputs):
        with forward_ad.dual_level():
            inputs[i] = forward_ad.make_dual(tensor, tensor.cos())
            results = [f(*inputs) for f in (op, formula)]
            for a, e in zip(*(r if isinstance(r, tuple) else (r,) for r in results), strict=True):
                found, expected = (forward_ad.unpack_dual(t).tangent for t in (a, e))
                assert (found is None) == (expected is None)
                if expected is not None:
                    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        inputs[i] = tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_results_keep_their_type_with_tangents(case, dtype):
    inputs = CASES[case].inputs(dtype)
    plain = CASES[case].op(*inputs)
    value, tangent = jvp(CASES[case].op, tuple(inputs), tuple(inputs))
    for p, v, t in zip(*(r if isinstance(r, tuple) else (r,) for r in (plain, value, tangent)), strict=True):
        assert p.dtype == v.dtype == t.dtype and p.shape == v.shape == t.shape
        torch.testing.assert_close(p, v, rtol=0.02, atol=0.05 if dtype == torch.bfloat16 else 1e-5)


def test_values_and_gradients_of_vjp_in_16_bits():
    inputs = CASES["expert_assembly"].inputs(torch.bfloat16)
    op = CASES["expert_assembly"].op
    leaves = [t.clone().requires_grad_() for t in inputs]
    op(*leaves).sum().backward()
    value, pull = vjp(op, *inputs)
    assert torch.equal(value, op(*inputs))
    for found, leaf in zip(pull(torch.ones_like(value)), leaves, strict=True):
        torch.testing.assert_close(found, leaf.grad, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("case", CASES)
def test_autocast_rounds_nothing_inside_an_op(case, backend):
    """Neither in a value nor in a derivative that PyTorch computes from the formula."""
    op, formula, _ = CASES[case]
    inputs = [t.float() for t in CASES[case].inputs()]

    def all_of(function, *inputs):
        leaves = [t.clone().requires_grad_() for t in inputs]
        first = torch.autograd.grad(loss_of(function, WEIGHTS)(*leaves), leaves, create_graph=True)
        return function(*inputs), jvp(function, inputs, tuple(t.cos() for t in inputs)), first

    expected = all_of(formula, *(t.double() for t in inputs))
    with use_backend(backend), torch.autocast(DEVICE, dtype=torch.bfloat16):
        found = all_of(op, *inputs)
    for a, e in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, e.float(), rtol=1e-5, atol=2e-5)


def test_gradient_penalty():
    """backward() through gradients, as in WGAN-GP, outside torch.func."""
    for name, case in CASES.items():
        found = []
        for function in (case.op, case.formula):
            leaves = [t.requires_grad_() for t in case.inputs()]
            gradients = torch.autograd.grad(loss_of(function, WEIGHTS)(*leaves), leaves, create_graph=True)
            sum(g.square().sum() for g in gradients).backward()
            found.append([leaf.grad for leaf in leaves])
        assert_same(*found, name)


def test_transforms_compile():
    case = CASES["group_norm_silu"]
    loss = loss_of(case.op, WEIGHTS)
    inputs = case.inputs()
    compiled = torch.compile(grad(loss), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), grad(loss)(*inputs))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 1, 3)).double().to(DEVICE)


def test_accelerated_networks_have_every_derivative():
    x, v = random(1, 3, 8, 8, seed=0).double(), random(1, 3, 8, 8, seed=1).double()
    plain, fused = network(), network()
    assert accelerate(fused).fused

    def of_parameters(net: nn.Module) -> dict[str, Tensor]:
        parameters = dict(net.named_parameters())
        return grad(lambda p: functional_call(net, p, (x,)).square().sum())(parameters)

    def tangent(net: nn.Module) -> Tensor:
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(net(forward_ad.make_dual(x, v))).tangent

    def penalty(net: nn.Module) -> Tensor:
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(net(leaf).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad(g.square().sum(), leaf)[0]

    for derivative in (of_parameters, tangent, penalty, lambda net: jvp(net, (x,), (v,))[1]):
        assert_same(derivative(fused), derivative(plain))


def first_of(results):
    return results[0] if isinstance(results, tuple) else results


@pytest.mark.parametrize("case", CASES)
def test_many_gradients_at_once(case):
    """autograd.grad(..., is_grads_batched=True), behind torch.autograd.functional's vectorize=True, gives the backward
    pass tensors that no kernel can read."""
    op, formula, _ = CASES[case]
    inputs, plain = ([t.requires_grad_() for t in CASES[case].inputs()] for _ in range(2))
    out, expected_out = first_of(op(*inputs)), first_of(formula(*plain))
    rows = torch.stack([random(*out.shape, seed=20 + i).double() for i in range(3)])
    found = torch.autograd.grad(out, inputs, rows, is_grads_batched=True)
    each = [torch.autograd.grad(expected_out, plain, row, retain_graph=True) for row in rows]
    assert_same(found, [torch.stack(group) for group in zip(*each, strict=True)], case)


@pytest.mark.parametrize("case", CASES)
def test_a_sparse_gradient_is_a_gradient(case):
    op, formula, _ = CASES[case]
    inputs, plain = ([t.requires_grad_() for t in CASES[case].inputs()] for _ in range(2))
    row = random(*first_of(op(*inputs)).shape, seed=20).double()
    row[..., 0] = 0
    first_of(op(*inputs)).backward(row.to_sparse())
    assert_same([t.grad for t in inputs], torch.autograd.grad(first_of(formula(*plain)), plain, row), case)


@pytest.mark.parametrize("case", CASES)
def test_vmap_of_nothing_has_the_shape_of_nothing(case):
    op, *_ = CASES[case]
    inputs = CASES[case].inputs()
    none = [t.new_zeros(0, *t.shape).requires_grad_() for t in inputs]
    for found, one in zip(tree_leaves(vmap(op)(*none)), tree_leaves(op(*inputs)), strict=True):
        assert found.shape == (0, *one.shape) and found.dtype == one.dtype
    first_of(vmap(op)(*none)).sum().backward()
    assert [t.grad.shape for t in none] == [t.shape for t in none]


@pytest.mark.parametrize("case", CASES)
def test_every_derivative_of_an_empty_batch(case):
    op, *_ = CASES[case]
    shared = (1, 2) if case in ("expert_head", "group_norm_silu") else ()  # parameters have no batch
    inputs = [t if i in shared else t[:0] for i, t in enumerate(CASES[case].inputs())]
    out, tangent = jvp(lambda *a: first_of(op(*a)), tuple(inputs), tuple(inputs))
    assert out.shape == tangent.shape and len(out) == 0
    leaves = [t.requires_grad_() for t in inputs]
    first = torch.autograd.grad(first_of(op(*leaves)).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(d.square().sum() for d in first), leaves, allow_unused=True)
    for leaf, *derivatives in zip(leaves, first, second, strict=True):
        assert all(d is None or (d.shape == leaf.shape and not d.any()) for d in derivatives)
