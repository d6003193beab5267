"""transport_step on every backend: bit for bit the two ops with the clamp between them, and against float64."""

import pytest
import torch
from torch import Tensor

from f2d_kernels import expert_assembly, lognormal_transition, transport_step

from .cases import CHANNELS, DEVICE, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, random
from .support import ALL_BACKENDS, SWEEP_BACKENDS, running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula
from .transport_cases import CLAMP, call, cotangents, inputs

NAMES = ["x", "deltas", "gates", "maps", "base", "log_mean", "log_std", "anchor", "noise"]


def two_ops(x, deltas, gates, maps, base, log_mean, log_std, *, anchor=None, clamp=(-1, 1), **noise):
    """What transport_step promises to equal."""
    mu = torch.clamp((x if anchor is None else anchor) + expert_assembly(deltas, gates, maps, base), *clamp)
    return lognormal_transition(x, mu, log_mean, log_std, **noise), mu


def formula(x, deltas, gates, maps, base, log_mean, log_std, anchor, noise):
    """By broadcasting, in the dtypes of the arguments: the assembly's is that of deltas and base."""
    weights = gates.reshape(*gates.shape[:2], -1, 1, 1)
    weights = weights if maps is None else weights * maps[:, :, None]
    total = (weights * deltas).sum(1).to(deltas.dtype)
    mu = ((x if anchor is None else anchor) + (total if base is None else base + total)).clamp(*CLAMP)
    z = log_mean.view(-1, 1, 1, 1) + log_std.view(-1, 1, 1, 1) * noise
    return mu + (x - mu) * torch.exp(z.clamp(-20, 20)), mu


def check(backend: str, arguments: list[Tensor | None]) -> None:
    """Both results and every gradient on `backend`; float64 is the truth, plain PyTorch at the same dtype the
    yardstick."""
    grads = cotangents(arguments)  # rounded once, so that all three are given the same
    results = {}
    for name, dtype in (("exact", torch.float64), ("plain", None), ("kernel", None)):
        leaves = [None if a is None else a.detach().to(dtype or a.dtype).requires_grad_() for a in arguments]
        if name == "kernel":
            with running_on(backend):
                outputs = call(transport_step, leaves)
                torch.autograd.backward(outputs, [g.to(o.dtype) for g, o in zip(grads, outputs)])
        else:
            outputs = formula(*leaves)
            torch.autograd.backward(outputs, [g.to(o.dtype) for g, o in zip(grads, outputs)])
        results[name] = [*(o.detach() for o in outputs), *(None if leaf is None else leaf.grad for leaf in leaves)]
    exact = dict(zip(NAMES, results["exact"][2:], strict=True))
    # gradients that are sums: the norm of one set of summands
    log_std = arguments[6].double().view(-1, 1, 1, 1)
    slopes = exact["noise"] / log_std
    through_mu = exact["base" if exact["base"] is not None else "anchor"]
    scales = {"log_mean": slopes.norm().item(), "log_std": (slopes * arguments[8].double()).norm().item()}
    if through_mu is not None:
        weights = 1.0 if arguments[3] is None else arguments[3].double()[:, :, None]
        summands = weights * arguments[1].double() * through_mu[:, None]
        scales["gates"] = summands.flatten(2).norm(dim=2).max().item()
    for name, actual, plain, truth in zip(
        ["x_next", "mu", *NAMES], *(results[k] for k in ("kernel", "plain", "exact")), strict=True
    ):
        if truth is not None:
            factor = FORWARD if name in ("x_next", "mu") else BACKWARD
            assert_close_as_formula(actual, plain, truth, factor, name, scales.get(name, 0.0))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes(backend, dtype, layout):
    check(backend, inputs(2, 4, 3, (15, 17), dtype, layout=layout))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("size", [*SIZES, LARGE_SIZE], ids=str)
def test_sizes(backend, size):
    check(backend, inputs(2, 3, 3, size))
    check(backend, inputs(1, 4, 3, size, torch.bfloat16, layout="channels_last", with_anchor=False))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_channel_counts(backend, channels, layout):
    check(backend, inputs(1, 2, channels, (4, 9), layout=layout))
    check(backend, inputs(1, 2, channels, (4, 9), torch.bfloat16, layout=layout, per_channel=True, with_anchor=False))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_mixed_dtypes(backend):
    x, deltas, gates, maps, base, log_mean, log_std, anchor, noise = inputs(2, 3, 3, (9, 5), torch.bfloat16)
    schedule = (log_mean.float(), log_std.float())
    check(backend, [x.float(), deltas, gates.float(), maps.half(), base, *schedule, None, noise])
    check(backend, [x, deltas.float(), gates, maps, base, *schedule, anchor, noise.float()])
    check(backend, [x, deltas, gates.double(), maps, base, log_mean.double(), log_std, anchor.float(), noise])


def assert_equal_to_the_two_ops(backend, arguments, gradients=True, **kwargs):
    grads = cotangents(arguments)
    results = []
    for function in (transport_step, two_ops):
        leaves = [None if a is None else a.detach().requires_grad_() for a in arguments]
        with running_on(backend):
            outputs = call(function, leaves, **kwargs)
            if gradients:
                torch.autograd.backward(outputs, grads)
        grad_of = [None if leaf is None else leaf.grad for leaf in leaves] if gradients else []
        results.append([*outputs, *grad_of])
    fused, apart = results
    for name, a, b in zip(["x_next", "mu", *NAMES], fused, apart):
        if name in ("gates", "log_mean", "log_std") and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        else:
            assert b is None or (a.dtype == b.dtype and torch.equal(a, b)), f"{name} differs from the two ops"


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_equals_the_two_ops_bit_for_bit(backend, dtype, layout):
    """Results in every dtype; in float32 the gradients of images, too (sums over pixels may take another order)."""
    arguments = inputs(2, 4, 3, (13, 21), dtype, layout=layout, with_anchor=False)
    seed = torch.tensor([5, -9], device=DEVICE)
    gradients = dtype == torch.float32
    assert_equal_to_the_two_ops(backend, arguments, gradients, noise=None, seed=seed, stream=3, window=(2, 5))


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("form", [
    {}, {"with_maps": False}, {"with_base": False}, {"with_anchor": False}, {"per_channel": True}, {"shared": True},
    {"with_maps": False, "with_base": False, "with_anchor": False}, {"shared": True, "per_channel": True},
    {"with_maps": False, "with_base": False}, {"with_maps": False, "with_base": False, "layout": "channels_last"},
    {"per_channel": True, "layout": "channels_last"}, {"shared": True, "layout": "channels_last"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("experts", [1, 4, 7])
def test_argument_forms_equal_the_two_ops(backend, form, experts):
    arguments = inputs(3, experts, 3, (6, 20), **form)
    assert_equal_to_the_two_ops(backend, arguments)
    assert_equal_to_the_two_ops(backend, arguments, noise=None, seed=11)
    if not form.get("shared"):
        check(backend, arguments)


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
@pytest.mark.parametrize("experts", range(1, 9))
def test_expert_counts_stacked_and_as_a_sequence(backend, experts):
    arguments = inputs(2, experts, 3, (5, 9))
    check(backend, arguments)
    grads = cotangents(arguments)
    stacked = [a.detach().requires_grad_() for a in arguments]
    parts = [d.detach().requires_grad_() for d in arguments[1].unbind(1)]
    with running_on(backend):
        torch.autograd.backward(call(transport_step, stacked), grads)
        outputs = call(transport_step, [arguments[0], parts, *arguments[2:]], sequence=True)
        torch.autograd.backward(outputs, grads)
        expected = call(transport_step, arguments)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert torch.equal(torch.stack([p.grad for p in parts], 1), stacked[1].grad)


@pytest.mark.parametrize("backend", SWEEP_BACKENDS)
def test_more_experts_than_one_pass_holds(backend):
    arguments = inputs(1, 19, 2, (3, 7))
    check(backend, arguments)
    assert_equal_to_the_two_ops(backend, arguments)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_flow_target_and_nmc_sampler(backend):
    """FLOW: mu = x_0 + prediction from any state. NMC: mu = state + prediction, the transition starts from x_0."""
    prediction, x_0, state = (random(2, 1, 3, 6, 8, seed=s)[:, 0] for s in range(3))
    one, position = torch.ones(2, 1, device=DEVICE), {"seed": 4, "stream": 6, "window": (1, 2)}
    with running_on(backend):
        flow = transport_step(state, [prediction], one, None, None, -0.4, 0.2, anchor=x_0, **position)
        nmc = transport_step(x_0, [prediction], one, None, None, -0.4, 0.2, anchor=state, **position)
        for (x_next, mu), start, anchor in ((flow, state, x_0), (nmc, x_0, state)):
            expected = (anchor + prediction).clamp(-1, 1)
            assert torch.equal(mu, expected)
            assert torch.equal(x_next, lognormal_transition(start, expected, -0.4, 0.2, **position))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_clamp_keeps_the_gradient_at_its_bounds_and_lets_nan_through(backend):
    total = torch.tensor([-1.5, -0.75, -0.5, 1.0, 1.5, float("nan")], device=DEVICE).view(1, 1, 1, 6)
    base, x = total.clone().requires_grad_(), torch.zeros_like(total)
    deltas, gates = torch.zeros(1, 1, 1, 1, 6, device=DEVICE), torch.zeros(1, 1, device=DEVICE)
    with running_on(backend):
        _, mu = transport_step(x, deltas, gates, None, base, -1.0, 0.0, clamp=CLAMP, noise=x)
        mu.sum().backward()
    reference = total.clone().requires_grad_()
    expected = reference.clamp(*CLAMP)
    expected.sum().backward()
    torch.testing.assert_close(mu, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(base.grad, reference.grad)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, float("inf")), (torch.float16, 1e6)])
def test_no_limit(backend, dtype, limit):
    """None, or one beyond the largest number of the dtype."""
    arguments = [a.to(dtype).requires_grad_() for a in inputs(1, 2, 3, (4, 8))[:7]]
    with running_on(backend):
        _, mu = transport_step(*arguments, clamp=(-limit, limit), seed=1)
        expected = arguments[0] + expert_assembly(*arguments[1:5])
        mu.sum().backward()
    assert torch.equal(mu, expected) and mu.abs().max() > 2
    assert torch.equal(arguments[0].grad, torch.ones_like(mu))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("with_anchor", [False, True])
def test_gradient_of_one_output_alone(backend, which, with_anchor):
    arguments = inputs(2, 3, 2, (5, 8), with_anchor=with_anchor)
    grads = []
    for function in (transport_step, two_ops):
        leaves = [None if a is None else a.detach().requires_grad_() for a in arguments]
        with running_on(backend):
            call(function, leaves)[which].square().sum().backward()
        grads.append([None if leaf is None else leaf.grad for leaf in leaves])
    for name, a, b in zip(NAMES, *grads, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("window", [(0, 0), (3, 4), (2, 5)])
def test_a_tile_is_a_part_of_the_whole(backend, layout, window):
    arguments = inputs(2, 3, 3, (12, 24), layout=layout)
    top, left = window
    part = [a if a is None or a.dim() < 3 else a[..., top : top + 7, left : left + 16] for a in arguments]
    with running_on(backend):
        whole = call(transport_step, arguments, noise=None, seed=8, stream=2)
        tile = call(transport_step, part, noise=None, seed=8, stream=2, window=window)
    for a, b in zip(whole, tile, strict=True):
        assert torch.equal(a[..., top : top + 7, left : left + 16], b)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE]:
        for channels in CHANNELS if backend != "triton" else (1, 3, 31):
            for experts in (1, 4, 7):
                for layout in LAYOUTS:
                    check(backend, inputs(1, experts, channels, size, dtype, layout=layout))
