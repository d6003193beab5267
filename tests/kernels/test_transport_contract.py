"""What transport_step promises beyond numbers: PyTorch integration, memory, result types, errors."""

import pytest
import torch

from f2d_kernels import transport_step

from .cases import DEVICE
from .support import ALL_BACKENDS, SWEEP_BACKENDS, running_on
from .transport_cases import call, cotangents, inputs


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("wanted", [*([i] for i in range(9)), [0, 1], [1, 2, 3], [2, 6], [3, 8], [4, 7], [0, 5, 8]])
def test_any_subset_of_gradients(backend, wanted):
    for with_anchor in (True, False):
        arguments = inputs(2, 3, 2, (4, 5), with_anchor=with_anchor)
        full = [None if a is None else a.detach().requires_grad_() for a in arguments]
        part = [a if i not in wanted or a is None else a.detach().requires_grad_() for i, a in enumerate(arguments)]
        if all(a is None or not a.requires_grad for a in part):
            continue
        with running_on(backend):
            torch.autograd.backward(call(transport_step, full), cotangents(arguments))
            torch.autograd.backward(call(transport_step, part), cotangents(arguments))
        for i, (a, b) in enumerate(zip(full, part, strict=True)):
            assert b is None or (b.grad is not None) == (i in wanted)
            if i in wanted and b is not None:
                torch.testing.assert_close(b.grad, a.grad)


def test_saves_only_what_the_wanted_gradients_look_at():
    """The gradient of x alone, where x is not the anchor, looks at the noise and at no image."""
    arguments = inputs(2, 3, 2, (16, 16))
    images = [a.untyped_storage().nbytes() for i, a in enumerate(arguments) if i in (0, 1, 3, 4, 7)]
    for wanted, kept in (([0], False), ([1], True)):
        saved = []
        leaves = [a.detach().requires_grad_(i in wanted) for i, a in enumerate(arguments)]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.untyped_storage().nbytes()) or t, lambda t: t
        ):
            outputs = call(transport_step, leaves, noise=None, seed=3)
        assert any(size in images for size in saved) == kept
        torch.autograd.backward(outputs, cotangents(arguments))


def small(dtype=torch.float64, grad=True, **form):
    return [None if a is None else a.to(dtype).requires_grad_(grad) for a in inputs(2, 3, 2, (4, 5), **form)]


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
def test_gradcheck(backend):
    with running_on(backend):
        assert torch.autograd.gradcheck(lambda *a: call(transport_step, a), small(), fast_mode=backend == "triton")
        x, deltas, gates, *_ = small()
        for step in (
            lambda x, d, g, m, s: transport_step(x, d, g, None, None, m, s, seed=5, stream=2),
            lambda x, d, g, m, s: transport_step(x, list(d.unbind(1)), g, None, None, m, s, seed=5),
        ):
            schedule = [t.detach().requires_grad_() for t in small()[5:7]]
            assert torch.autograd.gradcheck(step, (x, deltas, gates, *schedule), fast_mode=backend == "triton")
        shared = deltas[:1].detach().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda d, g: transport_step(x, d, g, None, None, -1.0, 0.5, seed=5), (shared, gates), fast_mode=True
        )


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_result_dtypes_and_memory_format(backend):
    x, deltas, gates, maps, base, *_ = small(torch.float32, grad=False)
    bf16, last = torch.bfloat16, torch.channels_last
    with running_on(backend):

        def dtypes(x, deltas, base=None, anchor=None):
            outputs = transport_step(x, deltas, gates, maps, base, -1.0, 0.5, anchor=anchor, seed=1)
            return tuple(o.dtype for o in outputs)

        assert dtypes(x, deltas.bfloat16()) == (torch.float32, torch.float32)
        assert dtypes(x.bfloat16(), deltas.bfloat16()) == (bf16, bf16)
        assert dtypes(x, deltas.bfloat16(), anchor=x.bfloat16()) == (torch.float32, bf16)
        assert dtypes(x.bfloat16(), deltas.bfloat16(), base) == (torch.float32, torch.float32)
        for image, expected in ((x, torch.contiguous_format), (x.contiguous(memory_format=last), last)):
            for out in transport_step(image, deltas, gates, maps, base, -1.0, 0.5, seed=1):
                assert out.is_contiguous(memory_format=expected)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
def test_empty_inputs_give_empty_results_and_zero_gradients(shape):
    batch, channels, height, width = shape
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    deltas = torch.randn(batch, 2, channels, height, width, device=DEVICE)
    gates = torch.randn(batch, 2, device=DEVICE, requires_grad=True)
    log_mean = torch.zeros(batch, device=DEVICE, requires_grad=True)
    outputs = transport_step(x, deltas, gates, None, None, log_mean, 1.0, seed=1)
    sum(o.sum() for o in outputs).backward()
    assert all(o.shape == shape for o in outputs)
    assert torch.equal(gates.grad, torch.zeros_like(gates)) and torch.equal(log_mean.grad, torch.zeros_like(log_mean))


X, D, G, M = torch.zeros(2, 2, 4, 5), torch.zeros(2, 3, 2, 4, 5), torch.zeros(2, 3), torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((X[0], D, G, M, None), {}, ValueError, r"transport_step: x must be \[B,C,H,W\], got \[2, 4, 5\]"),
        ((X.long(), D, G, M, None), {}, TypeError, "x must be float16"),
        ((X[:1], D, G, M, None), {}, ValueError, r"x must be the \[B,C,H,W\] of deltas and gates = \[2, 2, 4, 5\]"),
        ((X, D[0], G, M, None), {}, ValueError, r"transport_step: deltas must be \[B,K,C,H,W\]"),
        ((X, [], G, M, None), {}, ValueError, "at least one tensor"),
        ((X, [D[:, 0], D[:, 1, :1]], G[:, :2], None, None), {}, ValueError, r"deltas\[1\]"),
        ((X, D, G[:, :2], M, None), {}, ValueError, r"gates must be .* K = 3, C = 2, got \[2, 2\]"),
        ((X, D, G[:1], None, None), {}, ValueError, "batch size"),
        ((X, D, G, M[..., :4], None), {}, ValueError, r"maps must be \[B,K,H,W\] = \[2, 3, 4, 5\]"),
        ((X, D, G, M, X[:1]), {}, ValueError, "base must be"),
        ((X, D, None, M, X), {}, TypeError, "gates must be a tensor, got NoneType"),
        ((X, D, G, M, None), {"anchor": X[..., :3]}, ValueError, "anchor must be the shape of x"),
        ((X, D, G, M, None), {"anchor": 1.0}, TypeError, "anchor must be a tensor"),
        ((X, D, G, M, None), {"anchor": X.to("meta")}, ValueError, r"anchor must be on cpu .*got meta"),
        ((X.to("meta"), D, G, M, None), {}, ValueError, r"deltas must be on meta .*got cpu"),
        ((X, D, G, M, None), {"clamp": (1, -1)}, ValueError, "low <= high"),
        ((X, D, G, M, None), {"clamp": 1.0}, ValueError, r"clamp must be \(low, high\)"),
        (
            (X, D, G, M, None),
            {"clamp": (-1, None)},
            TypeError,
            r"clamp must be \(low, high\), two numbers, got None",
        ),
        ((X, D, G, M, None), {"clamp": (float("nan"), 1)}, ValueError, "low <= high"),
        ((X, D, G, M, None), {"noise": X, "seed": 1}, ValueError, "one source of noise"),
        ((X, D, G, M, None), {"noise": X[:1]}, ValueError, "noise must be the shape of the result"),
        ((X, D, G, M, None), {"stream": 65536}, ValueError, "0..65535"),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(arguments, options, error, message):
    with pytest.raises(error, match=message):
        transport_step(*arguments, -1.0, 0.5, **options)
    with pytest.raises(ValueError, match=r"log_mean must be a scalar or \[B\]"):
        transport_step(X, D, G, M, None, torch.zeros(3), 0.5)
