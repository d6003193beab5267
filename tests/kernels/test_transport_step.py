"""transport_step on every backend: bit for bit the two ops with the clamp between them, and against float64."""

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from f2d_kernels import expert_assembly, lognormal_transition, transport_step

from .cases import CHANNELS, DEVICE, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, lay_out, random
from .support import ALL_BACKENDS, SWEEP_BACKENDS, running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula

NAMES = ["x", "deltas", "gates", "maps", "base", "log_mean", "log_std", "anchor", "noise"]
CLAMP = (-0.75, 1.0)
OPS = torch.ops.f2d_kernels


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


def inputs(batch, experts, channels, size, dtype=torch.float32, *, shared=False, per_channel=False, layout="contiguous",
           with_maps=True, with_base=True, with_anchor=True):  # fmt: skip
    """The nine arguments in the order of NAMES. No sum lies so near to a bound that 16 bits clamp another element."""
    map_layout = layout if layout != "channels_last" else "contiguous"
    deltas = lay_out(0.5 * random(1 if shared else batch, experts, channels, *size, seed=0), layout).to(dtype)
    gates = random(*((batch, experts, channels) if per_channel else (batch, experts)), seed=1, dtype=dtype)
    maps = lay_out(random(batch, experts, *size, seed=2, dtype=dtype), map_layout) if with_maps else None
    x, base, anchor, noise = (
        lay_out(random(batch, channels, *size, seed=s, dtype=dtype), layout) for s in (3, 4, 5, 6)
    )
    log_mean = (-1.5 * random(batch, seed=7).abs()).to(dtype)
    log_std = (0.5 * random(batch, seed=8).abs()).to(dtype)
    anchor = anchor if with_anchor else None
    if with_base:
        for _ in range(2):
            total = (x if anchor is None else anchor).double() + base.double()
            total = expert_assembly(deltas.double(), gates.double(), maps if maps is None else maps.double(), total)
            near = sum(((total - bound).abs() < 0.06) for bound in CLAMP) > 0
            base = lay_out((base + 0.25 * near).to(dtype), layout)
    return [x, deltas, gates, maps, base if with_base else None, log_mean, log_std, anchor, noise]


def call(function, leaves, sequence=False, **kwargs):
    x, deltas, gates, maps, base, log_mean, log_std, anchor, noise = leaves
    deltas = list(deltas) if sequence else deltas
    return function(
        x, deltas, gates, maps, base, log_mean, log_std, anchor=anchor, clamp=CLAMP, **({"noise": noise} | kwargs)
    )


def cotangents(arguments: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    x, deltas, _, _, base, _, _, anchor, _ = arguments
    images = [x if anchor is None else anchor, deltas, *([] if base is None else [base])]
    mu_dtype = images[0].dtype
    for image in images:
        mu_dtype = torch.promote_types(mu_dtype, image.dtype)
    dtypes = torch.promote_types(x.dtype, mu_dtype), mu_dtype
    return tuple(random(*x.shape, seed=90 + i, dtype=dtype) for i, dtype in enumerate(dtypes))


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
def test_no_limit(backend):
    arguments = inputs(1, 2, 3, (4, 8))
    with running_on(backend):
        _, mu = transport_step(*arguments[:7], clamp=(-float("inf"), float("inf")), seed=1)
        expected = arguments[0] + expert_assembly(*arguments[1:5])
    assert torch.equal(mu, expected) and mu.abs().max() > 2


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


# --- what PyTorch asks of an op -------------------------------------------------------------------------------------


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


def opcheck_samples():
    x, deltas, gates, maps, base, log_mean, log_std, anchor, noise = small(torch.float32)
    rest = (-0.75, 1.0, noise, None, 1, 2, 3)
    yield OPS.transport_step.default, (x, [deltas], gates, maps, base, log_mean, log_std, anchor, *rest)
    seeded = (-0.75, 1.0, None, torch.tensor([5], device=DEVICE), 1, 2, 3)
    parts = list(deltas.detach().bfloat16().unbind(1))
    yield OPS.transport_step.default, (x, parts, gates, None, None, log_mean.detach(), log_std, None, *seeded)
    arguments = (x, [deltas], gates, maps, base, log_mean, log_std, anchor)
    detached = [[t[0].detach()] if isinstance(t, list) else t.detach() for t in arguments]
    tail = (*rest[:2], noise.detach(), *rest[3:], [False, False])
    yield (
        OPS.transport_step_backward.default,
        (x.detach(), x.detach(), *detached, *tail, [True] * 9, "auto"),
    )
    needs = [True, False, True, False, False, True, False, False, False]
    yield OPS.transport_step_backward.default, (x.detach(), None, *detached, *tail, needs, "auto")


@pytest.mark.parametrize("index", range(4))
def test_opcheck(index):
    op, arguments = list(opcheck_samples())[index]
    torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_compiles_as_one_graph_with_dynamic_shapes_without_recompiling(backend):
    compilations = 0

    def count(graph, inputs):
        nonlocal compilations
        compilations += 1
        return graph

    def step(x, deltas, gates, maps, base, seed):
        return transport_step(x, deltas, gates, maps, base, -1.0, 0.5, seed=seed, window=(1, 2))

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=count)
    with running_on(backend):
        for size in ((8, 12), (5, 7), (33, 16), (16, 31)):
            arguments = [*inputs(2, 3, 2, size)[:5], torch.tensor([7], device=DEVICE)]
            for a, b in zip(compiled(*arguments), step(*arguments), strict=True):
                assert torch.equal(a, b)
    assert compilations == 1


def test_compiled_gradients_through_inductor_equal_eager():
    def loss(*leaves):
        x_next, mu = call(transport_step, leaves)
        return x_next.square().sum() + mu.sum()

    eager, compiled = small(torch.float32), small(torch.float32)
    loss(*eager).backward()
    torch.compile(loss, fullgraph=True)(*compiled).backward()
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_export_keeps_the_op_whole():
    class Step(torch.nn.Module):
        def forward(self, x, deltas, gates, maps, base):
            return transport_step(x, deltas, gates, maps, base, -1.0, 0.5, seed=3)

    arguments = tuple(small(torch.float32, grad=False)[:5])
    program = torch.export.export(Step(), arguments)
    assert "f2d_kernels.transport_step.default" in {str(node.target) for node in program.graph.nodes}
    for a, b in zip(program.module()(*arguments), Step()(*arguments), strict=True):
        assert torch.equal(a, b)


def test_activation_checkpointing_gives_the_same_gradients():
    plain, again = small(torch.float32), small(torch.float32)
    call(transport_step, plain)[0].square().sum().backward()
    checkpoint(lambda *a: call(transport_step, a), *again, use_reentrant=False)[0].square().sum().backward()
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a.grad, b.grad)


def test_vmap_equals_a_loop():
    x, deltas, gates, maps, base, *_ = small(torch.float32, grad=False)

    def step(g):
        return transport_step(x, deltas, g, maps, base, -1.0, 0.5, seed=3)

    mapped = torch.func.vmap(step)(torch.stack([gates, 2 * gates]))
    for a, b in zip(mapped, step(2 * gates), strict=True):
        assert torch.equal(a[1], b)


def test_second_derivatives_are_an_error_that_says_so():
    leaves = small()
    (gradient,) = torch.autograd.grad(call(transport_step, leaves)[0].square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="transport_step_backward: second derivatives"):
        gradient.sum().backward()


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
        ((X, D, G, M, None), {"anchor": X.to("meta")}, ValueError, "anchor is on meta"),
        ((X.to("meta"), D, G, M, None), {}, ValueError, "deltas is on cpu"),
        ((X, D, G, M, None), {"clamp": (1, -1)}, ValueError, "low <= high"),
        ((X, D, G, M, None), {"clamp": 1.0}, ValueError, r"clamp must be \(low, high\)"),
        ((X, D, G, M, None), {"clamp": (-1, None)}, TypeError, "clamp must hold two numbers, got NoneType"),
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


@pytest.mark.slow
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE]:
        for channels in CHANNELS if backend != "triton" else (1, 3, 31):
            for experts in (1, 4, 7):
                for layout in LAYOUTS:
                    check(backend, inputs(1, experts, channels, size, dtype, layout=layout))
