"""expert_head on every backend against float64, by KERNELS.md's error rule."""

import functools

import pytest
import torch
from torch import Tensor

from f2d_kernels import expert_assembly, expert_head

from .cases import DEVICE, DTYPES, LARGE_SIZE, LAYOUTS, SIZES, lay_out, random
from .support import SWEEP_BACKENDS, running_on
from .tolerances import BACKWARD, FORWARD, assert_close_as_formula

BACKENDS = ["reference", "cpp", "triton"]
SWEEP = SWEEP_BACKENDS[:3]
NAMES = ["out", "d_features", "d_weight", "d_bias", "d_channel_scale", "d_gates", "d_maps", "d_base"]


def formula(features, weight, bias, channel_scale, gates, maps, base) -> Tensor:
    """base + Σ_k gates · maps · (weight (channel_scale ⊙ features) + bias), written out, in the arguments' dtype."""
    if channel_scale is not None:
        features = features * channel_scale[..., None, None]
    deltas = torch.einsum("kcf,bkfhw->bkchw", weight, features)
    if bias is not None:
        deltas = deltas + bias[:, :, None, None]
    weights = gates[..., None, None] if maps is None else gates[..., None, None] * maps
    total = (weights[:, :, None] * deltas).sum(1)
    return total if base is None else base + total


def inputs(batch, experts, width, channels, size, dtype=torch.float32, *, layout="contiguous", seed=0) -> list[Tensor]:
    flat = layout if layout != "channels_last" else "contiguous"
    return [
        lay_out(random(batch, experts, width, *size, seed=seed, dtype=dtype), layout),
        random(experts, channels, width, seed=seed + 1, dtype=dtype) * width**-0.5,
        random(experts, channels, seed=seed + 2, dtype=dtype),
        random(batch, experts, width, seed=seed + 3, dtype=dtype).sigmoid(),
        random(batch, experts, seed=seed + 4, dtype=dtype),
        lay_out(random(batch, experts, *size, seed=seed + 5, dtype=dtype), flat),
        lay_out(random(batch, channels, *size, seed=seed + 6, dtype=dtype), layout),
    ]


def root_sum_square(*tensors: Tensor, keep: str, batch: str) -> float:
    """The largest norm of what one element of a gradient adds up: the root of Σ over all but `keep` of its square."""
    terms = [t.double().square() for t in tensors]
    return torch.einsum(f"{batch}->{keep}", *terms).max().sqrt().item()


def scales(arguments: list[Tensor | None], grad: Tensor) -> dict[str, float]:
    """What the parameters' gradients sum: (gate · map) · g · weight · scale · feature, over all axes that they lack."""
    features, weight, _, scale, gates, maps, _ = arguments
    scale = torch.ones(features.shape[:3], device=DEVICE) if scale is None else scale
    maps = torch.ones((*gates.shape, *grad.shape[2:]), device=DEVICE) if maps is None else maps

    def root(keep: str, **without: bool) -> float:
        terms = {"f": features, "w": weight, "s": scale, "a": gates, "m": maps}
        axes = {"f": "bkfhw", "w": "kcf", "s": "bkf", "a": "bk", "m": "bkhw"}
        chosen = [name for name in terms if name not in without]
        spelled = ",".join(axes[name] for name in chosen)
        return root_sum_square(*(terms[n] for n in chosen), grad, keep=keep, batch=f"{spelled},bchw")

    return {
        "d_weight": root("kcf", w=True),
        "d_bias": root("kc", f=True, w=True, s=True),
        "d_channel_scale": root("bkf", s=True),
        "d_gates": root("bk", a=True),
    }


def check(backend: str, arguments: list[Tensor | None], *, sequence: bool = False, seed: int = 19) -> None:
    """Forward and every gradient on `backend`; float64 is the truth, plain PyTorch at the same dtype the yardstick."""
    features, weight, base = arguments[0], arguments[1], arguments[-1]
    result_dtype = features.dtype if base is None else torch.promote_types(features.dtype, base.dtype)
    # rounded once, so that all three are given the same
    grad = random(features.shape[0], weight.shape[1], *features.shape[-2:], seed=seed, dtype=result_dtype)
    dtypes = {a.dtype for a in arguments if a is not None}
    common = functools.reduce(torch.promote_types, dtypes)  # PyTorch's products take one dtype
    results = {}
    for name, dtype in (("exact", torch.float64), ("plain", None), ("kernel", None)):
        leaves = [None if a is None else a.detach().to(dtype or a.dtype).requires_grad_() for a in arguments]
        given = leaves[0]
        if name == "kernel":
            if sequence:  # views of one tensor each: the kernel sees the layout under test
                given = [f.detach().requires_grad_() for f in arguments[0].unbind(1)]
            with running_on(backend):
                out = expert_head(given, *leaves[1:])
                out.backward(grad.to(out.dtype))
        else:
            out = formula(*(leaf if leaf is None else leaf.to(dtype or common) for leaf in leaves))
            out = out.to(dtype or result_dtype)
            out.backward(grad.to(out.dtype))
        first = torch.stack([f.grad for f in given], 1) if sequence and name == "kernel" else leaves[0].grad
        results[name] = [out.detach(), first, *(None if leaf is None else leaf.grad for leaf in leaves[1:])]
    scale = scales(arguments, grad)
    for name, actual, plain, exact in zip(NAMES, results["kernel"], results["plain"], results["exact"], strict=True):
        if exact is not None:
            factor = FORWARD if name == "out" else BACKWARD
            # float64's truth is a running sum itself: against long double, over 4099 pixels, it is off by 9e-13 where
            # the C++ kernel is off by 1e-13
            size = scale.get(name, 0.0) * (4.0 if common == torch.float64 else 1.0)
            assert_close_as_formula(actual, plain, exact, factor, name, size)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes(backend, dtype, layout):
    check(backend, inputs(2, 2, 16, 3, (9, 17), dtype, layout=layout))


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("size", [*SIZES, LARGE_SIZE], ids=str)
def test_sizes(backend, size):
    check(backend, inputs(2, 3, 24, 3, size))
    check(backend, inputs(1, 3, 24, 3, size, torch.bfloat16, layout="channels_last"))


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("width", [1, 3, 8, 15, 16, 17, 33, 64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_widths_of_the_experts(backend, width, layout):
    check(backend, inputs(2, 2, width, 3, (4, 9), layout=layout))
    check(backend, inputs(2, 2, width, 3, (4, 9), torch.bfloat16, layout=layout))


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 12, 24, 31])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_channel_counts(backend, channels, layout):
    check(backend, inputs(1, 2, 32, channels, (4, 9), layout=layout))
    check(backend, inputs(1, 2, 32, channels, (4, 9), torch.bfloat16, layout=layout))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [65, 150])
def test_many_channels(backend, channels):
    """More than 64, of which a backward launch of Triton's kernel takes one part after the other."""
    check(backend, inputs(2, 2, 5, channels, (4, 9)))
    check(backend, inputs(1, 9, 3, channels, (3, 5), torch.bfloat16, layout="channels_last"), sequence=True)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("experts", [*range(1, 9), 19])
def test_expert_counts_stacked_and_as_a_sequence(backend, experts):
    arguments = inputs(2, experts, 8, 3, (5, 9))
    check(backend, arguments)
    check(backend, arguments, sequence=True)
    check(backend, inputs(2, experts, 8, 3, (5, 9), layout="channels_last"), sequence=True)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("absent", [(2,), (3,), (5,), (6,), (2, 3, 5, 6)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_optional_arguments(backend, absent, layout):
    arguments = inputs(2, 2, 16, 3, (3, 7), layout=layout)
    check(backend, [None if i in absent else a for i, a in enumerate(arguments)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_mixed_dtypes(backend, layout):
    features, weight, bias, scale, gates, maps, base = inputs(2, 2, 16, 3, (5, 9), layout=layout)
    check(backend, [features.bfloat16(), weight, bias.half(), scale.bfloat16(), gates, maps.half(), base])
    check(backend, [features.bfloat16(), weight.double(), bias, scale, gates, maps, base.bfloat16()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_expert_may_have_its_own_layout_and_dtype(backend):
    arguments = inputs(2, 4, 20, 3, (7, 11))
    leaves = [a.detach().requires_grad_() for a in arguments]
    formula(*leaves).square().sum().backward()
    parts = [lay_out(f, layout).detach() for f, layout in zip(arguments[0].unbind(1), LAYOUTS[:3] * 2, strict=False)]
    parts[3] = parts[3].double()
    for part in parts:
        part.requires_grad_()
    with running_on(backend):
        out = expert_head(parts, *arguments[1:])
        out.square().sum().backward()
    assert out.is_contiguous() and out.dtype == torch.float64
    for k, part in enumerate(parts):
        torch.testing.assert_close(part.grad.float(), leaves[0].grad[:, k], rtol=1e-4, atol=1e-4)
        assert part.grad.dtype == part.dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_assembly_of_projected_experts(backend):
    features, weight, bias, scale, gates, maps, base = inputs(2, 4, 32, 3, (16, 17), torch.float64)
    deltas = [
        torch.nn.functional.conv2d(scale[:, k, :, None, None] * features[:, k], weight[k, :, :, None, None], bias[k])
        for k in range(4)
    ]
    with running_on(backend):
        out = expert_head(features, weight, bias, scale, gates, maps, base)
    torch.testing.assert_close(out, expert_assembly(deltas, gates, maps, base), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", SWEEP)
def test_large_means_do_not_spoil_the_sums_over_pixels(backend):
    """Sums of 8,300 terms of one sign: a running float32 sum would lose 3 digits."""
    arguments = inputs(1, 1, 16, 3, (83, 100))
    check(backend, [a.abs() + 1 for a in arguments])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradient_of_a_sum_arrives_expanded(backend, layout):
    """out.sum().backward() hands the kernel a gradient of stride 0."""
    arguments = [a.detach().requires_grad_() for a in inputs(2, 3, 16, 3, (5, 6), layout=layout)]
    with running_on(backend):
        expert_head(*arguments).sum().backward()
    _, weight, _, scale, gates, maps, _ = (a.detach() for a in arguments)
    expected = (gates[..., None, None] * maps)[:, :, None] * (weight.sum(1) * scale)[..., None, None]
    torch.testing.assert_close(arguments[0].grad, expected)


@pytest.mark.parametrize("backend", SWEEP)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradcheck(backend, layout):
    arguments = [a.detach().requires_grad_() for a in inputs(2, 2, 4, 3, (2, 3), torch.float64, layout=layout)]
    with running_on(backend):
        assert torch.autograd.gradcheck(expert_head, arguments)
        assert torch.autograd.gradcheck(
            lambda f, w, g: expert_head(f, w, None, None, g), arguments[:2] + arguments[4:5]
        )
        parts = [f.detach().requires_grad_() for f in arguments[0].unbind(1)]
        assert torch.autograd.gradcheck(lambda a, b, *rest: expert_head([a, b], *rest), (*parts, *arguments[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_matrix(backend, dtype):
    for size in [*SIZES, LARGE_SIZE] if backend != "triton" else SIZES:
        for channels in (1, 3, 24) if backend != "triton" else (3,):
            for experts, width in ((1, 64), (4, 32), (5, 7)):
                for layout in LAYOUTS:
                    check(backend, inputs(1, experts, width, channels, size, dtype, layout=layout))
