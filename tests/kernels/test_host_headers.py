"""The arithmetic and the indexing of the CUDA kernels, on the host: csrc's headers and kernel bodies against
float64."""

import numpy as np
import pytest
import torch

from .cases import lay_out, random
from .host_driver import CHANNELS_LAST, COMPILER, DOUBLE, FLOAT, PLANAR, Driver
from .test_noise import KNOWN_ANSWERS, textbook_eps
from .tolerances import NORMAL

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
BITS = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}


def hardware_fma() -> bool:
    with open("/proc/cpuinfo") as file:
        return " fma " in file.read()


@pytest.fixture(scope="module", params=["", "-mfma"], ids=["software fma", "hardware fma"])
def driver(request, tmp_path_factory):
    if request.param and not hardware_fma():
        pytest.skip("this processor has no fma instruction")
    return Driver(tmp_path_factory.mktemp("driver"), [request.param] if request.param else [])


def assert_near(actual, exact, scale, name=""):
    """Within one rounding of the stored dtype, plus 8 float32 (float64) roundings of the magnitudes that were added."""
    assert not actual.isnan().any(), f"{name}: elements never written"
    arithmetic = 2.0**-53 if actual.dtype == torch.float64 and scale.dtype == torch.float64 else 2.0**-24
    allowed = (
        exact.abs() * 2.0 ** -(BITS[actual.dtype] + 1) * 1.01
        + 8 * arithmetic * scale
        + 6e-8 * (actual.dtype == torch.float16)
    )
    excess = (actual.double() - exact).abs() - allowed
    assert (excess <= 0).all(), f"{name}: {excess.max():.3e} beyond its bound"


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(driver, counter, key, words):
    out = np.zeros(4, np.uint32)
    driver.call("philox", np.array(counter, np.uint32), np.array(key, np.uint32), out)
    assert tuple(int(w) for w in out) == words


def test_normals_are_within_their_bound_over_all_words(driver):
    """Every float u occurs among: all words below 2^16, 2^16 words around each power of two, random ones, the last
    2^16."""
    rng = np.random.default_rng(0)
    edges = [np.arange(2**16), 2**32 - 1 - np.arange(2**16), rng.integers(0, 2**32, 2**20)]
    edges += [np.clip(2**k + np.arange(-(2**12), 2**12), 0, 2**32 - 1) for k in range(12, 33)]
    # quarters of the circle, where sine and cosine change places
    edges += [np.clip(k * 2**29 + np.arange(-(2**12), 2**12), 0, 2**32 - 1) for k in range(9)]
    word = np.concatenate(edges).astype(np.uint32)
    pairs = np.stack([word, rng.permutation(word)], 1).copy()
    pairs = np.concatenate([pairs, pairs[:, ::-1], [[0, w] for w in range(0, 2**32, 2**20)]]).astype(np.uint32)
    u, eps = np.zeros(pairs.shape, np.float32), np.zeros(pairs.shape, np.float32)
    driver.call("normal", pairs, u, eps, len(pairs))
    assert np.array_equal(u, pairs.astype(np.float32) * np.float32(2**-32) + np.float32(2**-33))
    exact = u.astype(np.float64)
    radius, angle = np.sqrt(-2 * np.log(exact[:, 0])), 2 * np.pi * exact[:, 1]
    error = np.abs(eps - np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)).max()
    assert error <= 1.1e-6 < NORMAL  # the proven bound of csrc/normal.h


def test_exponential_is_within_two_units_in_the_last_place(driver):
    rng = np.random.default_rng(1)
    z = np.concatenate([np.linspace(-20, 20, 200001), rng.normal(size=100000), 10.0 ** rng.uniform(-30, 0, 100000)])
    z = z.astype(np.float32)
    exp, expm1 = np.zeros_like(z), np.zeros_like(z)
    driver.call("exponential", z, exp, expm1, len(z))
    for actual, exact in ((exp, np.exp(z.astype(np.float64))), (expm1, np.expm1(z.astype(np.float64)))):
        units = np.abs(actual - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        assert units.max() <= 2
    zero = np.zeros(1, np.float32)
    driver.call("exponential", zero, exp[:1], expm1[:1], 1)
    assert exp[0] == 1 and expm1[0] == 0


def test_fma_rounds_once(driver):
    """Against exact rational arithmetic, at cancellations and at sums whose double rounding would differ."""
    from fractions import Fraction

    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 4000)).astype(np.float32)
    c = rng.normal(size=4000).astype(np.float32)
    c[:1000] = -(a * b)[:1000]
    # the product is one float, even or odd, plus exactly half a unit; a c far below decides the rounding
    a[1000:2000], b[1000:1500], b[1500:2000] = np.float32([1 + 2**-12, 1 + 2**-12, 1 + 3 * 2**-12])
    c[1000:2000] = np.float32(2.0) ** rng.integers(-80, -40, 1000) * rng.choice([-1, 1], 1000)
    out = np.zeros_like(a)
    driver.call("fma", a, b, c, out, len(a))
    for x, y, z, got in zip(a, b, c, out, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        error = abs(Fraction(float(got)) - exact)
        for neighbour in (np.nextafter(got, np.float32(np.inf)), np.nextafter(got, np.float32(-np.inf))):
            other = abs(Fraction(float(neighbour)) - exact)
            assert error < other or (error == other and int(got.view(np.int32)) % 2 == 0)


def test_sixteen_bit_conversions_equal_pytorchs(driver):
    every = np.arange(2**16, dtype=np.uint16)
    halves, brains = np.zeros(2**16, np.float32), np.zeros(2**16, np.float32)
    driver.call("from_halves", every, halves, brains, len(every))
    bits = torch.from_numpy(every.view(np.int16))
    np.testing.assert_array_equal(halves, bits.view(torch.float16).float().numpy())
    np.testing.assert_array_equal(brains, bits.view(torch.bfloat16).float().numpy())

    between = np.concatenate(
        [np.nextafter(x, s) for x in (halves, brains) for s in (-np.inf, np.inf)] + [halves, brains]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        middles = np.concatenate([(x[:-1].astype(np.float64) + x[1:]) / 2 for x in (halves, brains)]).astype(np.float32)
    values = np.concatenate([between, middles, np.random.default_rng(3).normal(size=10000)]).astype(np.float32)
    out = np.zeros((2, len(values)), np.uint16)
    driver.call("halves", values, out[0], out[1], len(values))
    for row, dtype in ((0, torch.float16), (1, torch.bfloat16)):
        expected = torch.from_numpy(values).to(dtype)
        actual = torch.from_numpy(out[row].view(np.int16)).view(dtype)
        assert torch.equal(actual.isnan(), expected.isnan())
        assert torch.equal(actual.nan_to_num(0, 9, -9), expected.nan_to_num(0, 9, -9))


def poisoned(like, layout="contiguous", shape=None, dtype=None):
    return lay_out(torch.full(shape or like.shape, float("nan"), dtype=dtype or like.dtype), layout)


ASSEMBLY = [  # kind, layout, size, channels: what the launcher would give each kernel
    *((PLANAR, "contiguous", size, c) for size in ((1, 8), (4, 8), (16, 16), (24, 27)) for c in (1, 3)),
    *((CHANNELS_LAST, "channels_last", size, c)
      for size, c in (((4, 8), 3), ((1, 257), 48), ((3, 11), 8), ((15, 17), 64))),
    *((FLOAT, layout, size, c) for layout in ("contiguous", "channels_last", "sliced", "expanded")
      for size, c in (((1, 1), 3), ((3, 11), 1), ((15, 17), 5))),
    (DOUBLE, "contiguous", (5, 7), 3),
]  # fmt: skip


@pytest.mark.parametrize("dtypes", ["float32", "bfloat16", "float16", "mixed"])
@pytest.mark.parametrize(("kind", "layout", "size", "channels"), ASSEMBLY)
def test_expert_assembly_bodies(driver, kind, layout, size, channels, dtypes):
    single = torch.float64 if kind == DOUBLE else getattr(torch, dtypes.replace("mixed", "float32"))
    other = torch.bfloat16 if dtypes == "mixed" else single
    for experts, per_channel, shared, listed, with_maps in (
        (1, 0, 0, 0, 0),
        (4, 1, 0, 1, 1),
        (5, 0, 1, 0, 1),
        (7, 1, 1, 0, 0),
    ):
        batch = 2
        deltas = random(1 if shared else batch, experts, channels, *size, seed=0, dtype=other)
        gates = random(*((batch, experts, channels) if per_channel else (batch, experts)), seed=1, dtype=single)
        maps = random(batch, experts, *size, seed=2, dtype=single) if with_maps else None
        base = lay_out(random(batch, channels, *size, seed=3, dtype=single), layout)
        stack = lay_out(deltas, layout)
        given = [lay_out(deltas[:, k], layout) for k in range(experts)] if listed else [stack]
        out = poisoned(base, "channels_last" if layout == "channels_last" else "contiguous")
        driver.assembly_forward(kind, out, given, gates, maps, base)

        g = (gates if per_channel else gates[:, :, None]).double()[..., None, None]
        m = 1.0 if maps is None else maps.double()[:, :, None]
        d = stack.double().expand(batch, -1, -1, -1, -1)
        terms = g * m * d
        assert_near(out, terms.sum(1) + base.double(), terms.abs().sum(1) + base.double().abs(), "out")

        grad = lay_out(random(batch, channels, *size, seed=4, dtype=single), layout)
        d_deltas = [poisoned(t, "channels_last" if layout == "channels_last" else "contiguous") for t in given]
        d_maps = None if maps is None else poisoned(maps)
        backward = FLOAT if kind == CHANNELS_LAST else kind
        d_gates = driver.assembly_backward(backward, grad, given, gates, maps, d_deltas, d_maps)
        q = grad.double()[:, None]
        full = (g * m * q).expand_as(d)
        full = full.sum(0, keepdim=True) if shared else full
        scale = (g * m * q).abs().expand_as(d).sum(0, keepdim=True) if shared else full.abs()
        assert_near(torch.stack(d_deltas, 1) if listed else d_deltas[0], full, scale, "d_deltas")
        if maps is not None:
            assert_near(d_maps, (g * q * d).sum(2), (g * q * d).abs().sum(2), "d_maps")
        axes = (3, 4) if per_channel else (2, 3, 4)
        products = (m * q * d).expand_as(d)
        assert_near(d_gates, products.sum(axes), products.abs().sum(axes).float(), "d_gates")


LOGNORMAL = [  # kind, layout, size, channels, seeded, left
    *((PLANAR, "contiguous", size, 3, True, 4) for size in ((1, 8), (5, 16), (9, 264))),
    *((PLANAR, layout, (4, 14), 4, False, 0) for layout in ("contiguous", "channels_last")),
    *((FLOAT, layout, size, 3, seeded, left) for layout in ("contiguous", "channels_last", "sliced", "expanded")
      for size, left in (((1, 1), 3), ((3, 11), 0), ((31, 1), 2), ((5, 51), 1021)) for seeded in (True, False)),
    (DOUBLE, "contiguous", (5, 7), 3, True, 1),
    (DOUBLE, "channels_last", (5, 7), 3, False, 1),
]  # fmt: skip


@pytest.mark.parametrize("dtypes", ["float32", "bfloat16", "mixed"])
@pytest.mark.parametrize(("kind", "layout", "size", "channels", "seeded", "left"), LOGNORMAL)
def test_lognormal_transition_bodies(driver, kind, layout, size, channels, seeded, left, dtypes):
    single = torch.float64 if kind == DOUBLE else getattr(torch, dtypes.replace("mixed", "float32"))
    other = torch.float16 if dtypes == "mixed" else single
    batch, stream, top = 2, 65535, 7
    x, mu, noise = (
        lay_out(random(batch, channels, *size, seed=s, dtype=d), layout) for s, d in enumerate((single, other, other))
    )
    log_mean, log_std = random(batch, seed=3, dtype=single) * 0.3, random(batch, seed=4, dtype=single) * 0.5
    seed = torch.tensor([-(2**63) + 5, 12345678901234567]) if seeded else None
    position = (stream, top, left)
    dense = "channels_last" if layout == "channels_last" else "contiguous"
    out = poisoned(x, dense)
    source = {"noise": None, "seed": seed} if seeded else {"noise": noise, "seed": None}
    driver.lognormal_forward(kind, out, x, mu, log_mean, log_std, **source, position=position)

    eps = noise.double()
    if seeded:
        eps = torch.tensor(
            [textbook_eps(int(seed[b]), stream, 0, c, top + y, left + w) for b, c, y, w in np.ndindex(*x.shape)]
        ).view(x.shape)
    deep = [t.double() for t in (x, mu, log_mean.view(-1, 1, 1, 1), log_std.view(-1, 1, 1, 1))]
    z = deep[2] + deep[3] * eps
    d, f = deep[0] - deep[1], z.exp()
    # the exponent's own error (and the noise's, where it is drawn) times the factor
    loose = (2 + z.abs()) * (1 + (20 * deep[3].abs() if seeded else 0))
    single_noise = torch.float32 if seeded else torch.float64

    def scale(magnitude):
        return magnitude.to(single_noise) if kind == DOUBLE else magnitude.float()

    assert_near(out, deep[1] + d * f, scale(deep[0].abs() + deep[1].abs() + d.abs() * f * loose), "out")

    grad = lay_out(random(*x.shape, seed=5, dtype=single), layout)
    d_x, d_mu, d_noise = poisoned(x, dense), poisoned(mu, dense), None if seeded else poisoned(noise, dense)
    d_mean, d_std = driver.lognormal_backward(
        kind, grad, x, mu, log_mean, log_std, *source.values(), position, d_x, d_mu, d_noise
    )
    g = grad.double()
    slope, size_of_slope = g * d * f, g.abs() * (d.abs() + deep[0].abs() + deep[1].abs()) * f * loose
    assert_near(d_x, g * f, scale(g.abs() * f * loose), "d_x")
    assert_near(d_mu, g * (1 - f), scale(g.abs() * (1 + f * loose)), "d_mu")
    axes = (1, 2, 3)
    assert_near(d_mean, slope.sum(axes), scale(size_of_slope.sum(axes)), "d_log_mean")
    assert_near(d_std, (slope * eps).sum(axes), scale((size_of_slope * (1 + eps.abs())).sum(axes)), "d_log_std")
    if not seeded:
        assert_near(d_noise, slope * deep[3], scale(size_of_slope * deep[3].abs()), "d_noise")


def test_a_clamped_exponent_passes_no_gradient_to_the_noise(driver):
    x, mu, noise = torch.ones(1, 1, 1, 3), torch.zeros(1, 1, 1, 3), torch.tensor([-21.0, 20.0, 21.0]).view(1, 1, 1, 3)
    d_x, d_mu, d_noise = (torch.full_like(x, float("nan")) for _ in range(3))
    ones = torch.ones_like(x)
    mean, std = torch.zeros(1), torch.ones(1)
    driver.lognormal_backward(FLOAT, ones, x, mu, mean, std, noise, None, (0, 0, 0), d_x, d_mu, d_noise)
    assert d_noise[..., 0] == 0 and d_noise[..., 2] == 0
    assert abs(d_noise[..., 1].item() / np.exp(20) - 1) < 1e-6
    assert abs(d_x[..., 2].item() / np.exp(20) - 1) < 1e-6


EXPERTS = 1  # kind of backward kernel: vectors, with the experts' gradients
TRANSPORT = [  # kinds forward and backward, layout, size, channels, seeded, left
    *((PLANAR, backward, "contiguous", size, 3, True, 4) for size in ((1, 8), (5, 16), (9, 264))
      for backward in (PLANAR, EXPERTS)),
    *((PLANAR, backward, "contiguous", (4, 14), 4, False, 0) for backward in (PLANAR, EXPERTS)),
    *((FLOAT, FLOAT, layout, size, 3, seeded, left) for layout in ("contiguous", "channels_last", "sliced", "expanded")
      for size, left in (((1, 1), 3), ((3, 11), 0), ((5, 51), 1021)) for seeded in (True, False)),
    (DOUBLE, DOUBLE, "contiguous", (5, 7), 3, True, 1),
    (DOUBLE, DOUBLE, "channels_last", (5, 7), 3, False, 1),
]  # fmt: skip
FORMS = [  # experts, gates per channel, deltas as a list, maps, base, anchor
    *((1, 0, 0, 1, 1, 1), (2, 1, 1, 0, 0, 1), (3, 0, 1, 1, 1, 0), (4, 1, 0, 1, 0, 0), (7, 0, 0, 1, 1, 0)),
]


@pytest.mark.parametrize("dtypes", ["float32", "bfloat16", "mixed"])
@pytest.mark.parametrize(("forward", "backward", "layout", "size", "channels", "seeded", "left"), TRANSPORT)
def test_transport_step_bodies(driver, forward, backward, layout, size, channels, seeded, left, dtypes):
    """What follows mu is held against the mu that the kernel stores, so that its rounding to 16 bits hides nothing."""
    double = forward == DOUBLE
    single = torch.float64 if double else getattr(torch, dtypes.replace("mixed", "float32"))
    other = torch.bfloat16 if dtypes == "mixed" and not double else single
    batch, position, clamp = 2, (65535, 7, left), (-0.75, 1.0)
    dense = "channels_last" if layout == "channels_last" else "contiguous"
    of_noise = torch.float64 if double and not seeded else torch.float32
    seed = torch.tensor([-(2**63) + 5, 12345678901234567]) if seeded else None
    if seeded:
        places = np.ndindex(batch, channels, *size)
        eps_of = [textbook_eps(int(seed[b]), 65535, 0, c, 7 + y, left + w) for b, c, y, w in places]
        drawn = torch.tensor(eps_of).view(batch, channels, *size)
    for experts, per_channel, listed, with_maps, with_base, with_anchor in FORMS:
        if backward == EXPERTS and experts > 4:
            continue
        x, base, anchor, noise = (
            lay_out(random(batch, channels, *size, seed=s, dtype=d), layout)
            for s, d in enumerate((single, other, single, other))
        )
        base, anchor = base if with_base else None, anchor if with_anchor else None
        deltas = lay_out(random(batch, experts, channels, *size, seed=5, dtype=other), layout)
        given = [lay_out(deltas[:, k], layout) for k in range(experts)] if listed else [deltas]
        gates = random(*((batch, experts, channels) if per_channel else (batch, experts)), seed=6, dtype=single)
        maps = random(batch, experts, *size, seed=7, dtype=other) if with_maps else None
        schedule = random(batch, seed=8, dtype=single) * 0.3, random(batch, seed=9, dtype=single) * 0.5
        arguments = x, given, gates, maps, base, *schedule, anchor, None if seeded else noise, seed
        x_next, mu = poisoned(x, dense), poisoned(x, dense)
        driver.transport_forward(forward, x_next, mu, arguments, position, clamp)

        eps = drawn if seeded else noise.double()
        g = (gates if per_channel else gates[:, :, None]).double()[..., None, None]
        m = torch.ones(1, dtype=torch.float64) if maps is None else maps.double()[:, :, None]
        parts = [g * m * deltas.double(), *(t.double()[:, None] for t in (base, x if anchor is None else anchor)
                                            if t is not None)]  # fmt: skip
        total, size_of_total = torch.cat(parts, 1).sum(1), torch.cat(parts, 1).abs().sum(1)
        # what the assembly would store is rounded before the anchor joins, then their sum is
        rounding = sum(2.0 ** -(BITS[t] + 1) for t in (other, mu.dtype))
        off = (mu.double() - total.clamp(*clamp)).abs() - 1.01 * size_of_total * rounding
        assert_near(off.clamp(min=0), 0 * total, size_of_total.to(of_noise), "mu")

        deep_mu, start = mu.double(), x.double()
        mean, std = (t.double().view(-1, 1, 1, 1) for t in schedule)
        z = mean + std * eps
        d, f = start - deep_mu, z.exp()
        # the exponent's own error (and the noise's, where it is drawn) times the factor
        loose = (2 + z.abs()) * (1 + (20 * std.abs() if seeded else 0))
        size_of_next = start.abs() + deep_mu.abs() + d.abs() * f * loose
        assert_near(x_next, deep_mu + d * f, size_of_next.to(of_noise), "x_next")

        grad_x, grad_mu = (lay_out(random(*x.shape, seed=s, dtype=single), layout) for s in (10, 11))
        d_x, d_mu, d_noise = poisoned(x, dense), poisoned(x, dense), None if seeded else poisoned(noise, dense)
        d_deltas, d_maps = [poisoned(t, dense) for t in given], None if maps is None else poisoned(maps)
        d_mean, d_std, d_gates = driver.transport_backward(
            *(backward, grad_x, grad_mu, arguments, position, clamp, d_deltas),
            **{"d_maps": d_maps, "d_x": d_x, "d_mu": d_mu, "d_noise": d_noise},
        )
        q, h = grad_x.double(), grad_mu.double()
        inside = (total > clamp[0]) & (total < clamp[1])
        # at a bound, rounding decides
        at_bound = sum((total - bound).abs() <= size_of_total * rounding + 1e-6 for bound in clamp) > 0
        v = torch.where(torch.where(at_bound, d_mu != 0, inside), h + q * (1 - f), 0.0)
        size_of_v = h.abs() + q.abs() * (1 + f * loose)
        assert_near(d_mu, v, size_of_v.to(of_noise), "v")
        share = v if anchor is None else 0 * v
        assert_near(d_x, q * f + share, (q.abs() * f * loose + size_of_v).to(of_noise), "d_x")
        slope, size_of_slope = q * d * f, q.abs() * (d.abs() + start.abs() + deep_mu.abs()) * f * loose
        if not seeded:
            assert_near(d_noise, slope * std, (size_of_slope * std.abs()).to(of_noise), "d_noise")
        axes = (1, 2, 3)
        assert_near(d_mean, slope.sum(axes), size_of_slope.sum(axes).float(), "d_log_mean")
        assert_near(d_std, (slope * eps).sum(axes), (size_of_slope * (1 + eps.abs())).sum(axes).float(), "d_log_std")
        if backward != EXPERTS:
            continue
        v, size_of_v = v[:, None], size_of_v[:, None]
        full, size_of_full = (g * m * v).expand(deltas.shape), (g * m * size_of_v).abs().expand(deltas.shape)
        assert_near(torch.stack(d_deltas, 1) if listed else d_deltas[0], full, size_of_full.float(), "d_deltas")
        products, sizes = deltas.double() * v, deltas.double().abs() * size_of_v
        if maps is not None:
            assert_near(d_maps, (g * products).sum(2), (g.abs() * sizes).sum(2).float(), "d_maps")
        axes = (3, 4) if per_channel else (2, 3, 4)
        assert_near(d_gates, (m * products).sum(axes), (m.abs() * sizes).sum(axes).float(), "d_gates")


def test_indices_beyond_32_bits(driver):
    """Threads at the end of an image of 2^33 pixels reach the right channel, row and column: no such memory is
    needed."""
    side, channels = 2**16, 3
    pixels = side * side * 2
    cells = torch.arange(1.0, 1 + channels).view(1, channels, 1, 1)
    image = cells.expand(1, channels, side, side * 2)
    out = torch.full((1,), float("nan")).expand(image.shape)
    gates = torch.ones(1, 1)
    for channel in range(channels):
        last = (channel + 1) * pixels - 1
        driver.assembly_forward(
            FLOAT, out, [image[:, None].expand(1, 1, -1, -1, -1)], gates, None, None, (last, last + 1)
        )
        assert out[0, 0, 0, 0] == channel + 1

    mean, std, seed = torch.zeros(1), torch.ones(1), torch.tensor([7])
    quads = pixels // 4
    zeros, ones = torch.zeros(1).expand(image.shape), torch.ones(1).expand(image.shape)
    driver.lognormal_forward(FLOAT, out, ones, zeros, mean, std, None, seed, (0, 0, 0), (3 * quads - 1, 3 * quads))
    # the quad's four pixels land in the one cell, the last one last
    assert abs(out[0, 0, 0, 0].log() - textbook_eps(7, 0, 0, 2, side - 1, 2 * side - 1)) < 3e-6

    mu = torch.full((1,), float("nan")).expand(image.shape)
    arguments = ones, [image[:, None].expand(1, 1, -1, -1, -1)], gates, None, None, mean, std, zeros, None, seed
    driver.transport_forward(FLOAT, out, mu, arguments, clamp=(-9.0, 9.0), span=(3 * quads - 1, 3 * quads))
    factor = np.exp(textbook_eps(7, 0, 0, 2, side - 1, 2 * side - 1))
    assert mu[0, 0, 0, 0] == 3 and abs(out[0, 0, 0, 0] / (3 - 2 * factor) - 1) < 1e-5
