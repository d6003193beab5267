"""The Triton kernels called directly, in the interpreter or on a GPU: what the tests of the public ops do not reach."""

import itertools
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from .cases import DEVICE, lay_out, random
from .textbook_noise import KNOWN_ANSWERS, textbook_eps
from .tolerances import NORMAL

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from f2d_kernels.registry import REGISTRY  # noqa: E402
from f2d_kernels.triton import unavailable_reason  # noqa: E402

if (reason := unavailable_reason(DEVICE)) is not None:
    pytest.skip(f"triton: {reason}", allow_module_level=True)

from f2d_kernels.triton import _blocks, _quads, expert_assembly, lognormal_transition  # noqa: E402
from f2d_kernels.triton._reduce import sum_rows  # noqa: E402
from f2d_kernels.triton.exponential import exponential  # noqa: E402
from f2d_kernels.triton.normal import normal_quads  # noqa: E402

NAN = float("nan")


@triton.jit
def philox_kernel(out, seed, counter):
    c0, c1, c2, c3 = tl.load(counter), tl.load(counter + 1), tl.load(counter + 2), tl.load(counter + 3)
    words = tl.philox(tl.load(seed), c0.to(tl.uint32), c1.to(tl.uint32), c2.to(tl.uint32), c3.to(tl.uint32))
    for i in tl.static_range(4):
        tl.store(out + i, words[i].to(tl.int64))


@triton.jit
def quads_kernel(out, seed, first_quad, y, c, stream, sample, N: tl.constexpr):
    quad = first_quad + tl.arange(0, N)
    rows = tl.full([N], 0, tl.int32)
    eps = normal_quads(tl.load(seed), quad, rows + y, rows + c, tl.cast(stream, tl.int64), tl.cast(sample, tl.int64))
    tl.store(out + tl.arange(0, 4 * N), eps)


@triton.jit
def exponential_kernel(out, z, N: tl.constexpr):
    i = tl.arange(0, N)
    exp, expm1, small = exponential(tl.load(z + i))
    tl.store(out + i, exp)
    tl.store(out + N + i, expm1)
    tl.store(out + 2 * N + i, small.to(tl.float32).to(exp.dtype))


@triton.jit
def offsets_kernel(out, b, c, p, k, width, stride, FLAT: tl.constexpr):
    zero = tl.cast(0, tl.int64)
    sample = zero + b
    one = tl.arange(0, 1)
    image = _blocks.addresses(zero, stride, sample, one + c, one + p, width, FLAT)
    tl.store(out + one, tl.reshape(image, [1]))
    tl.store(out + 1, _blocks.plane_of(zero, stride, sample, k))
    element = (one + p, one + c, one + p // width, one + p % width)
    tl.store(out + 2 + one, _quads._addresses(zero, stride, sample, element, False))


def signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, words):
    out = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    seed = torch.tensor([signed(key[0] + (key[1] << 32))], device=DEVICE)
    philox_kernel[(1,)](out, seed, torch.tensor(counter, device=DEVICE))
    assert tuple(out.tolist()) == words


def test_four_neighbours_come_from_one_counter():
    """Largest stream, high channel, and columns around 2^31, where the counter needs all of its 32 bits."""
    out = torch.full((64,), NAN, device=DEVICE)
    seed, quad = 0xFEDCBA9876543210, 2**29 - 8
    quads_kernel[(1,)](out, torch.tensor([signed(seed)], device=DEVICE), quad, 7, 65535, 65535, 3, N=16)
    for i, eps in enumerate(out.tolist()):
        assert abs(eps - textbook_eps(seed, 65535, 3, 65535, 7, 4 * quad + i)) <= NORMAL


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2.0**-23), (torch.float64, 2.0**-51)])
def test_exponential_against_float64(dtype, bound):
    """Relative errors of exp everywhere, of expm1 where it is said to be small: within 2 and 4 units of round-off."""
    z = torch.cat([torch.linspace(-87, 20, 512), torch.linspace(-0.36, 0.36, 512)]).to(dtype)
    z[0], z[512] = 1e-12, -1e-30
    out = torch.full((3, 1024), NAN, dtype=dtype, device=DEVICE)
    exponential_kernel[(1,)](out, z.to(DEVICE), N=1024)
    exp, expm1, small = out.cpu().double()
    assert ((exp / z.double().exp() - 1).abs() <= bound).all()
    chosen = small.bool()
    assert chosen[z.abs() < 0.34].all() and not chosen[z.abs() > 0.36].any()
    assert ((expm1[chosen] / z[chosen].double().expm1() - 1).abs() <= 2 * bound).all()


def test_offsets_pass_2_to_the_31():
    stride = (5 * 2**40 + 1, 2**31 - 5, 2**31 + 7, 2**30 + 3)
    for b, c, p, k in itertools.product((0, 3), (1, 70000), (5, 2**31 - 2), (0, 7)):
        out = torch.zeros(3, dtype=torch.int64, device=DEVICE)
        offsets_kernel[(1,)](out, b, c, p, k, 50000, stride, FLAT=False)
        y, x = divmod(p, 50000)
        image = b * stride[0] + c * stride[1] + y * stride[2] + x * stride[3]
        assert out.tolist() == [image, b * stride[0] + k * stride[1], image]


def assembly_case(experts: int, channels=3, size=(15, 17), per_channel=False):
    deltas = [lay_out(random(2, channels, *size, seed=k), ("contiguous", "channels_last", "sliced")[k % 3])
              for k in range(experts)]  # fmt: skip
    gates = random(*((2, experts, channels) if per_channel else (2, experts)), seed=20)
    return deltas, gates, random(2, experts, *size, seed=21), random(2, channels, *size, seed=22)


def run_assembly(deltas, gates, maps, base, grad) -> list[Tensor]:
    out, d_gates, d_maps = (torch.full_like(t, NAN) for t in (grad, gates, maps))
    d_deltas = [torch.full(d.shape, NAN, dtype=d.dtype, device=DEVICE) for d in deltas]
    expert_assembly.forward(out, deltas, gates, maps, base)
    expert_assembly.backward(grad, deltas, gates, maps, d_deltas, d_gates, d_maps)
    return [out, d_gates, d_maps, *d_deltas]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("experts", [1, 5, 8, 9, 17])
def test_any_number_of_experts_each_with_its_own_strides(experts, per_channel):
    """Above 8 experts one launch hands its sum to the next in float32."""
    arguments = assembly_case(experts, per_channel=per_channel)
    grad = random(2, 3, 15, 17, seed=30)
    exact = [[d.double().requires_grad_() for d in arguments[0]], *(t.double().requires_grad_() for t in arguments[1:])]
    weights = exact[1].reshape(2, experts, -1, 1, 1) * exact[2][:, :, None]
    out = exact[3] + (weights * torch.stack(exact[0], 1)).sum(1)
    out.backward(grad.double())
    expected = [out.detach(), exact[1].grad, exact[2].grad, *(d.grad for d in exact[0])]
    for actual, wanted in zip(run_assembly(*arguments, grad), expected, strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize(("channels", "per_channel"), [(1, False), (3, False), (3, True), (6, False)])
def test_block_size_does_not_change_a_bit_of_the_assembly(channels, per_channel, monkeypatch):
    deltas, gates, maps, base = assembly_case(2, channels, (23, 29), per_channel)
    grad = random(2, channels, 23, 29, seed=31)
    block_c = expert_assembly.block_sizes(grad)["BLOCK_C"]
    results = []
    for block_p in (128, 256, 1024):
        blocks = {"BLOCK_C": block_c, "BLOCK_P": block_p, "num_warps": 4}
        monkeypatch.setattr(expert_assembly, "block_sizes", lambda image, blocks=blocks: blocks)
        results.append(run_assembly(deltas, gates, maps, base, grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def run_transition(x, mu, schedule, grad, noise, seed, left) -> list[Tensor]:
    position = (x, mu, *schedule, noise, seed, 9, 6, left)
    out, d_x, d_mu = (torch.full_like(x, NAN) for _ in range(3))
    d_mean, d_std = (torch.full_like(s, NAN) for s in schedule)
    d_noise = None if noise is None else torch.full_like(noise, NAN)
    lognormal_transition.forward(out, *position)
    lognormal_transition.backward(grad, *position, d_x, d_mu, d_mean, d_std, d_noise)
    return [t for t in (out, d_x, d_mu, d_mean, d_std, d_noise) if t is not None]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize(("width", "left"), [(16, 0), (16, 3), (17, 4), (30, 1)])
def test_block_size_and_path_do_not_change_a_bit_of_the_transition(layout, width, left, monkeypatch):
    """256 to 1024 quads a block; and the dense, strided and channels_last paths: their images are equal bit for bit."""
    x, mu, grad = (lay_out(random(2, 5, 19, width, seed=s), layout) for s in range(3))
    schedule = torch.tensor([-0.1, 0.4], device=DEVICE), torch.tensor([0.3, 9.0], device=DEVICE)
    seed = torch.tensor([77, -5], device=DEVICE)
    results = []
    for quads in (256, 512, 1024):
        monkeypatch.setattr(_quads, "QUADS", quads)
        results.append(run_transition(x, mu, schedule, grad, None, seed, left))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    plain = run_transition(x.contiguous(), mu.contiguous(), schedule, grad.contiguous(), None, seed, left)
    assert all(torch.equal(a, b) for a, b in zip(results[0][:3], plain[:3], strict=True))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 12)])
def test_noise_given_equals_noise_drawn(size):
    """The textbook's eps of a seed, given as a tensor, lead to the same results and gradients as the seed."""
    x, mu, grad = (random(2, 3, *size, seed=s) for s in range(3))
    schedule = torch.tensor([0.0, 0.2], device=DEVICE), torch.tensor([0.5, 0.7], device=DEVICE)
    seed = torch.tensor([123456789], device=DEVICE)
    noise = torch.empty_like(x)
    for b, c, y, column in itertools.product(range(2), range(3), range(size[0]), range(size[1])):
        noise[b, c, y, column] = textbook_eps(123456789, 9, b, c, 6 + y, 2 + column)
    drawn = run_transition(x, mu, schedule, grad, None, seed, 2)
    given = run_transition(x, mu, schedule, grad, noise, None, 2)
    for a, b in zip(drawn, given[:5], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_transition_equals_the_compiled_part_bit_for_bit(layout):
    """Same polynomials, same order of every fma: forward, d_x and d_mu on C++ (here) or CUDA (on a GPU)."""
    compiled = "cpp" if DEVICE == "cpu" else "cuda"
    if (missing := REGISTRY[compiled].unavailable(DEVICE)) is not None:
        pytest.skip(f"{compiled}: {missing}")
    if DEVICE == "cpu" and tuple(int(v) for v in triton.__version__.split(".")[:2]) < (3, 9):
        pytest.skip(f"the interpreter of triton {triton.__version__} rounds an fma twice; 3.9 rounds once")
    x, mu, grad = (lay_out(random(2, 3, 33, 35, seed=s), layout) for s in range(3))
    schedule = torch.tensor([-0.1, 0.0], device=DEVICE), torch.tensor([0.6, 0.01], device=DEVICE)
    position = (x, mu, *schedule, None, torch.tensor([2024], device=DEVICE), 9, 6, 5)
    out, d_x, d_mu = (torch.full_like(x, NAN) for _ in range(3))
    implementation = REGISTRY[compiled].implementation("lognormal_transition")
    implementation.forward(out, *position)
    implementation.backward(grad, *position, d_x, d_mu, None, None, None)
    for a, b in zip((out, d_x, d_mu), run_transition(x, mu, schedule, grad, None, position[5], 5), strict=False):
        assert torch.equal(a, b), f"{int((a != b).sum())} of {a.numel()} elements differ"


def test_the_second_reduction_adds_every_partial_once():
    partials = torch.arange(3 * 1000, dtype=torch.float64, device=DEVICE).reshape(3, 1000)
    out = torch.full((3,), NAN, dtype=torch.float64, device=DEVICE)
    sum_rows(partials, out)
    assert torch.equal(out, partials.sum(1))


def test_importing_the_library_does_not_import_triton():
    code = "import sys, f2d_kernels; f2d_kernels.backends(); sys.exit('f2d_kernels.triton.normal' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reasons_name_the_device_and_the_remedy(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "TRITON_INTERPRET=1" in unavailable_reason("cpu")
    assert "not mps" in unavailable_reason("mps")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert unavailable_reason("cuda") == "triton is not installed: pip install f2d[triton]"
