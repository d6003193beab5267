"""Calls that the compiled part checks and runs alone: their bits are those of the long way, on which the rest goes."""

import importlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
    use_backend,
)

from .cases import random
from .support import running_on

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="direct calls serve the CPU")
B, K, C, H, W = 2, 3, 4, 5, 6
IMAGE = (B, C, H, W)
NAMES = (
    "expert_assembly",
    "expert_head",
    "lognormal_transition",
    "transport_step",
    "gaussian_transition",
    "group_norm_silu",
)


def tensor(*shape, seed=0, dtype=torch.float32, last=False):
    value = random(*shape, seed=seed).to("cpu", dtype)
    return value.contiguous(memory_format=torch.channels_last) if last else value


def calls(dtype: torch.dtype, last: bool) -> dict:
    """name -> (function, its tensors): every form of every argument that a direct call takes."""

    def image(seed, kind=dtype):
        return tensor(*IMAGE, seed=seed, dtype=kind, last=last)

    x, mu, base, eps = image(0), image(1), image(2), image(3)
    stacked, shared = tensor(B, K, C, H, W, seed=4, dtype=dtype), tensor(1, K, C, H, W, seed=5, dtype=dtype)
    listed = [image(10 + k) for k in range(K)]
    gates, each, maps = tensor(B, K, seed=6), tensor(B, K, C, seed=7), tensor(B, K, H, W, seed=8, dtype=dtype)
    mean, std, scalar = -tensor(B, seed=9).abs(), tensor(B, seed=20).abs(), tensor(seed=21).abs()
    seeds = torch.tensor([3, 5])
    weight, bias, scale = tensor(K, 3, C, seed=22), tensor(K, 3, seed=23), tensor(B, K, C, seed=24, dtype=dtype)
    out3 = tensor(B, 3, H, W, seed=25, dtype=dtype, last=last)
    gain, shift = tensor(C, seed=26), tensor(B, C, seed=27, dtype=dtype)
    step, move = transport_step, lognormal_transition
    return {
        "stacked deltas": (expert_assembly, [stacked, gates, maps, base]),
        "shared deltas": (expert_assembly, [shared, each]),
        "listed deltas": (lambda *a: expert_assembly(a[:K], *a[K:]), [*listed, gates, maps, base.float()]),
        "head": (expert_head, [stacked, weight, bias, scale, gates, maps, out3]),
        "head alone": (lambda *a: expert_head(list(a[:K]), a[K], None, None, a[K + 1]), [*listed, weight, gates]),
        "noise": (lambda *a: move(*a[:4], noise=a[4]), [x, mu.double(), mean, std, eps]),
        "seed": (lambda *a: move(*a, seed=2**64 - 7, stream=65535), [x, mu, mean, std.bfloat16()]),
        "numbers": (lambda *a: move(*a, -0.7, 1, seed=seeds), [x, mu]),
        "scalars": (lambda *a: move(*a, seed=seeds[:1]), [x, mu, -scalar, scalar]),
        "step": (lambda *a: step(*a[:-1], noise=a[-1]), [x, stacked, gates, maps, base, mean, std, eps]),
        "step of a list": (
            lambda *a: step(a[0], a[1 : K + 1], a[K + 1], None, None, -1, 0.3, seed=4),
            [x, *listed, gates],
        ),
        "anchored step": (
            lambda *a: step(*a[:-1], 0.4, anchor=a[-1], clamp=(-0.5, 2), seed=seeds, stream=3),
            [x, shared, gates, maps, base, mean, mu.float()],
        ),
        "terms": (lambda *a: gaussian_transition(a[:2], *a[2:4], noise=a[4]), [x, mu, tensor(B, 2, seed=28), std, eps]),
        "four terms": (lambda *a: gaussian_transition(list(a), [1, 0.5, -0.25, 2.0], 0.3, seed=9), [x, mu, base, eps]),
        "no noise": (lambda *a: gaussian_transition(a, (0.3, 0.7), 0), [x, mu.double()]),
        "zero with a seed": (lambda *a: gaussian_transition(a, [0.3], 0.0, seed=1), [x]),
        "norm": (lambda *a: group_norm_silu(a[0], 2, *a[1:]), [x, gain, gain.double(), shift, shift]),
        "bare norm": (lambda a: group_norm_silu(a, 4, None, None, eps=0.1), [x]),
        "norm and mean": (lambda *a: group_norm_silu(a[0], 1, None, *a[1:], return_mean=True), [x, gain]),
    }


FORMS = list(calls(torch.float32, False))


def results_of(name, dtype, last, grad):
    function, tensors = calls(dtype, last)[name]
    leaves = [t.clone().requires_grad_(grad) for t in tensors]
    results = function(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    if not grad:
        return [r.clone() for r in results], [r.stride() for r in results], [r.dtype for r in results]
    sum((r.double() * tensor(*r.shape, seed=30).double()).sum() for r in results).backward()
    return [*results, *(leaf.grad for leaf in leaves)], [r.stride() for r in results], [r.dtype for r in results]


def no_long_way(monkeypatch):
    for name in NAMES:
        module = importlib.import_module(f"f2d_kernels.ops.{name}")
        monkeypatch.setattr(module, "common_dtype", None, raising=False)
        monkeypatch.setattr(module, "check_floating", None, raising=False)
        monkeypatch.setattr(module, "check_experts", None, raising=False)


@pytest.mark.parametrize("grad", [False, True], ids=["value", "gradients"])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_a_direct_call_equals_the_long_way(name, dtype, last, grad):
    with running_on("cpp"):  # its look at every result keeps calls from going directly
        expected, strides, dtypes = results_of(name, dtype, last, grad)
    found, found_strides, found_dtypes = results_of(name, dtype, last, grad)
    assert (found_strides, found_dtypes) == (strides, dtypes)
    for a, e in zip(found, expected, strict=True):
        assert a.dtype == e.dtype and torch.equal(a, e)


@pytest.mark.parametrize("name", FORMS)
def test_a_gradient_that_is_wanted_alone_is_that_of_all(name):
    every, _, _ = results_of(name, torch.float32, False, True)
    function, tensors = calls(torch.float32, False)[name]
    gradients = every[-len(tensors) :]
    for i, expected in enumerate(gradients):
        leaves = [t.clone().requires_grad_(i == j) for j, t in enumerate(tensors)]
        results = function(*leaves)
        results = results if isinstance(results, tuple) else (results,)
        sum((r.double() * tensor(*r.shape, seed=30).double()).sum() for r in results).backward()
        assert [leaf.grad is None for leaf in leaves] == [i != j for j in range(len(leaves))]
        assert torch.equal(leaves[i].grad, expected)


@pytest.mark.parametrize("name", FORMS)
def test_these_calls_go_directly(name, monkeypatch):
    with running_on("cpp"):
        pass  # skips without the compiled part
    no_long_way(monkeypatch)
    results_of(name, torch.float32, False, False)


def arguments_of(name):
    tensors = calls(torch.float32, False)
    forms = dict(zip(NAMES, ("stacked deltas", "head", "seed", "step", "terms", "norm"), strict=True))
    return tensors[forms[name]]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_modes_and_traces_see_the_public_op(name):
    function, tensors = arguments_of(name)
    seen = []

    class Dispatch(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    class Function(TorchFunctionMode):
        def __torch_function__(self, op, types, args=(), kwargs=None):
            seen.append(str(op))
            return op(*args, **(kwargs or {}))

    for mode in (Dispatch, Function):
        seen.clear()
        with mode():
            function(*tensors)
        assert f"f2d_kernels.{name}.default" in seen
    graph = torch.fx.experimental.proxy_tensor.make_fx(function)(*tensors).graph
    assert f"f2d_kernels.{name}.default" in {str(node.target) for node in graph.nodes}
    traced = torch.jit.trace(function, tuple(tensors), check_trace=False)
    assert f"f2d_kernels::{name}(" in str(traced.graph)


@pytest.mark.parametrize("name", NAMES)
def test_subclasses_keep_their_class(name):
    class Named(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            result = super().__torch_function__(function, types, args, kwargs or {})
            seen.append(str(function))
            return result

    seen = []
    function, tensors = arguments_of(name)
    function(*(t.as_subclass(Named) for t in tensors))
    assert any(name in s for s in seen)


@pytest.mark.parametrize("name", NAMES)
def test_backends_are_respected(name, monkeypatch):
    function, tensors = arguments_of(name)
    no_long_way(monkeypatch)
    with use_backend("reference"), pytest.raises(TypeError, match="'NoneType' object is not callable"):
        function(*tensors)
    monkeypatch.setenv("F2D_KERNELS_BACKEND", "reference")
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        function(*tensors)


@pytest.mark.parametrize("kind", ["sparse", "meta", "nested"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_other_kinds_go_the_long_way(name, place, kind):
    """Where they are errors, which do not speak of direct calls."""
    function, tensors = arguments_of(name)
    value = {"sparse": tensors[place].to_sparse(), "meta": tensors[place].to("meta")}.get(kind)
    tensors[place] = torch.nested.nested_tensor([tensors[place]]) if value is None else value
    with pytest.raises((RuntimeError, ValueError, TypeError, NotImplementedError)) as caught:
        function(*tensors)
    assert "direct" not in str(caught.value)


def test_gradients_in_a_graph_that_is_differentiated_again():
    """The direct backward pass is for the last derivative only."""
    x = tensor(*IMAGE).double().requires_grad_()
    (g,) = torch.autograd.grad(group_norm_silu(x, 2, None, None).square().sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.square().sum(), x)
    y = torch.nn.functional.silu(torch.nn.functional.group_norm(x, 2))
    (e,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    torch.testing.assert_close(h, torch.autograd.grad(e.square().sum(), x)[0])


@pytest.mark.parametrize("shape", [(), (6,), (C, H, W)], ids=str)
def test_a_state_that_is_no_batch_of_images_is_refused_by_name(shape):
    """With gradients as without; a schedule that fits the other tensors is not to blame."""
    x, image, schedule = torch.zeros(shape, requires_grad=True), tensor(*IMAGE), tensor(B)
    with pytest.raises(ValueError, match=r"^lognormal_transition: x must be \[B,C,H,W\]"):
        lognormal_transition(x, image, schedule, schedule, seed=1)
    with pytest.raises(ValueError, match=r"^transport_step: x must be \[B,C,H,W\]"):
        transport_step(x, [image], tensor(B, 1), None, None, schedule, schedule, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_records_nothing_whatever_the_grad_mode(name):
    """As PyTorch's own ops, and what it leaves behind does not break the calls that follow."""
    function, tensors = arguments_of(name)
    leaves = [t.requires_grad_() for t in tensors]
    with torch.inference_mode(), torch.enable_grad():
        for result in tree_leaves(function(*leaves)):
            assert result.is_inference() and not result.requires_grad
    sum(result.sum() for result in tree_leaves(function(*leaves))).backward()
    assert all(leaf.grad is not None for leaf in leaves)


@pytest.mark.parametrize("name", ["stacked deltas", "head", "terms"])
def test_a_shape_first_seen_in_inference_mode_can_still_be_trained(name):
    """The tensor that is saved where only a shape matters is kept for later calls."""
    function, (first, *others) = calls(torch.float32, False)[name]
    first = first[..., :3, :2].contiguous().requires_grad_()  # a size that no other test has
    others = [t[..., :3, :2].contiguous() if t.shape[-2:] == (H, W) else t for t in others]
    with torch.inference_mode(), torch.enable_grad():
        function(first, *others)
    function(first, *others).sum().backward()
    assert first.grad is not None


def test_no_gradients_from_an_op_that_none_wants():
    x = tensor(*IMAGE).requires_grad_()
    with torch.no_grad():
        assert not group_norm_silu(x, 2, None, None).requires_grad
    with torch.inference_mode():
        assert group_norm_silu(x, 2, None, None).is_inference()
    frozen = x.detach()
    gain = tensor(C).requires_grad_()
    group_norm_silu(frozen, 2, gain, None).sum().backward()
    assert frozen.grad is None and gain.grad is not None
    _, mean = group_norm_silu(x, 2, None, None, return_mean=True)
    mean.sum().backward()  # through the means alone
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0
