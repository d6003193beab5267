"""What expert_assembly and lognormal_transition promise beyond numbers: result types, memory formats, errors."""

import pytest
import torch

from f2d_kernels import expert_assembly, lognormal_transition
from f2d_kernels.modules import ExpertAssembly, LogNormalTransition

from .cases import DEVICE, random
from .support import ALL_BACKENDS, SWEEP_BACKENDS, running_on


def assembly_inputs(dtype=torch.float64, grad=True):
    tensors = [
        random(2, 3, 2, 4, 5, seed=0),
        random(2, 3, seed=1),
        random(2, 3, 4, 5, seed=2),
        random(2, 2, 4, 5, seed=3),
    ]
    return [t.to(dtype).requires_grad_(grad) for t in tensors]


def transition_inputs(dtype=torch.float64, grad=True):
    x, mu, noise = (random(2, 3, 4, 5, seed=s) for s in range(3))
    return [t.to(dtype).requires_grad_(grad) for t in (x, mu, -random(2, seed=3).abs(), random(2, seed=4).abs(), noise)]


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
def test_gradcheck_assembly(backend):
    deltas, gates, maps, base = assembly_inputs()
    with running_on(backend):
        assert torch.autograd.gradcheck(expert_assembly, (deltas, gates, maps, base))
        assert torch.autograd.gradcheck(lambda d, g: expert_assembly(d, g), (deltas, gates))
        parts = [d.detach().requires_grad_() for d in deltas.unbind(1)]
        assert torch.autograd.gradcheck(
            lambda a, b, c, *rest: expert_assembly([a, b, c], *rest), (*parts, gates, maps, base)
        )
        shared = deltas[:1].detach().requires_grad_()
        assert torch.autograd.gradcheck(expert_assembly, (shared, gates, maps, base))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
def test_gradcheck_transition(backend):
    *state, noise = transition_inputs()
    with running_on(backend):
        assert torch.autograd.gradcheck(lambda *a: lognormal_transition(*a[:4], noise=a[4]), (*state, noise))
        assert torch.autograd.gradcheck(lambda *a: lognormal_transition(*a, seed=5, stream=2), tuple(state))


def test_saves_only_what_the_wanted_gradients_look_at():
    """With frozen gates and maps, the deltas' values are not kept alive for the backward pass."""
    saved = []
    deltas, gates, maps, _ = assembly_inputs(torch.float32, grad=False)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        expert_assembly(deltas.requires_grad_(), gates, maps)
    assert deltas.untyped_storage().nbytes() not in saved
    assert maps.untyped_storage().nbytes() in saved


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_result_dtype_and_memory_format(backend):
    deltas, gates, maps, base = assembly_inputs(torch.float32, grad=False)
    last = torch.channels_last
    with running_on(backend):
        assert expert_assembly(deltas.bfloat16(), gates, maps).dtype == torch.bfloat16
        assert expert_assembly(deltas.bfloat16(), gates, maps, base).dtype == torch.float32
        parts = [d.contiguous(memory_format=last) for d in deltas.unbind(1)]
        assert expert_assembly(parts, gates, maps, base).is_contiguous(memory_format=last)
        assert expert_assembly(deltas, gates, maps, base.contiguous(memory_format=last)).is_contiguous()
        x, mu, *_ = transition_inputs(torch.bfloat16, grad=False)
        assert lognormal_transition(x, mu, -1.0, 0.5, seed=1).dtype == torch.bfloat16
        assert lognormal_transition(x, mu.float(), -1.0, 0.5, seed=1).dtype == torch.float32
        out = lognormal_transition(x.contiguous(memory_format=last), mu, -1.0, 0.5, seed=1)
        assert out.is_contiguous(memory_format=last)


def test_autocast_takes_inputs_as_they_come():
    deltas, gates, maps, base = assembly_inputs(torch.float32, grad=False)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert expert_assembly(deltas, gates, maps, base).dtype == torch.float32


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
def test_empty_inputs_give_empty_results_and_zero_gradients(shape):
    batch, channels, height, width = shape
    deltas = torch.randn(batch, 2, channels, height, width, device=DEVICE, requires_grad=True)
    gates = torch.randn(batch, 2, device=DEVICE, requires_grad=True)
    out = expert_assembly(deltas, gates)
    out.sum().backward()
    assert out.shape == shape and torch.equal(gates.grad, torch.zeros_like(gates))
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    log_mean = torch.zeros(batch, device=DEVICE, requires_grad=True)
    lognormal_transition(x, x.detach(), log_mean, 1.0, seed=1).sum().backward()
    assert torch.equal(log_mean.grad, torch.zeros_like(log_mean))


def test_modules_are_the_functions():
    arguments = assembly_inputs(torch.float32, grad=False)
    assert torch.equal(ExpertAssembly()(*arguments), expert_assembly(*arguments))
    x, mu, log_mean, log_std, _ = transition_inputs(torch.float32, grad=False)
    expected = lognormal_transition(x, mu, log_mean, log_std, seed=4, stream=1, window=(1, 2))
    assert torch.equal(LogNormalTransition()(x, mu, log_mean, log_std, seed=4, stream=1, window=(1, 2)), expected)


D, G, M = torch.zeros(2, 3, 2, 4, 5), torch.zeros(2, 3), torch.zeros(2, 3, 4, 5)
X = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: expert_assembly(D[0], G), ValueError, r"deltas must be \[B,K,C,H,W\]"),
        (lambda: expert_assembly([], G), ValueError, "at least one tensor"),
        (lambda: expert_assembly([D[:, 0], D[:, 1, :1]], G[:, :2]), ValueError, r"deltas\[1\]"),
        (lambda: expert_assembly(D, G[:, :2]), ValueError, r"gates must be .* K = 3, C = 2, got \[2, 2\]"),
        (lambda: expert_assembly(D, G[:1]), ValueError, "batch size"),
        (lambda: expert_assembly(D, G, M[..., :4]), ValueError, r"maps must be \[B,K,H,W\] = \[2, 3, 4, 5\]"),
        (lambda: expert_assembly(D, G, M, X), ValueError, "base must be"),
        (lambda: expert_assembly(D.long(), G), TypeError, "deltas must be float16"),
        (lambda: expert_assembly(D, None), TypeError, "gates must be a tensor, got NoneType"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=1, stream=1.5), TypeError, "stream must be a whole number"),
        (
            lambda: lognormal_transition(X, X, 0.0, 1.0, seed=1, window=(0.5, 1)),
            TypeError,
            "top must be a whole number",
        ),
        (lambda: expert_assembly(D, [1.0]), TypeError, "gates must be a tensor, got list"),
        (lambda: expert_assembly(D, G.to("meta")), ValueError, r"gates must be on cpu .*got meta"),
        (lambda: lognormal_transition(X[0], X[0], 0.0, 1.0), ValueError, r"x must be \[B,C,H,W\]"),
        (lambda: lognormal_transition(X, X[:1], 0.0, 1.0), ValueError, "mu must be the shape of x"),
        (lambda: lognormal_transition(X, X, torch.zeros(3), 1.0), ValueError, r"log_mean must be a scalar or \[B\]"),
        (lambda: lognormal_transition(X, X, "0", 1.0), TypeError, "log_mean must be a number"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, noise=X, seed=1), ValueError, "one source of noise"),
        (
            lambda: lognormal_transition(X, X, 0.0, 1.0, noise=X[:1]),
            ValueError,
            "noise must be the shape of",
        ),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=2**64), ValueError, "64 bits"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=1.5), TypeError, "seed must be an int"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=torch.zeros(3).long()), ValueError, "one per sample"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=torch.zeros(1)), TypeError, "int64"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=1, stream=65536), ValueError, "0..65535"),
        (lambda: lognormal_transition(X, X, 0.0, 1.0, seed=1, window=(0, -1)), ValueError, "window .* must lie in"),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(call, error, message):
    with pytest.raises(error, match=message):
        call()
