"""The indexing of the CUDA kernels: their bodies on the host against float64."""

import numpy as np
import pytest
import torch

from .cases import lay_out, random
from .host_bodies import assert_near, poisoned
from .host_driver import CHANNELS_LAST, DOUBLE, FLOAT, ONE_TYPE, PLANAR, TRIPLES
from .textbook_noise import textbook_eps

MIXED, UNIFORM = ("float32", "bfloat16", "float16", "mixed"), ("float32", "bfloat16")
ASSEMBLY = [  # kind, layout, size, channels, dtypes: what the launcher would give each kernel
    *((kind, "contiguous", size, c, d) for kind, dtypes in ((PLANAR, MIXED), (ONE_TYPE, UNIFORM))
      for size in ((1, 8), (4, 8), (16, 16), (24, 27)) for c in (1, 3) for d in dtypes),
    *((TRIPLES, "channels_last", size, 3, d) for size in ((2, 4), (24, 27)) for d in UNIFORM),
    *((CHANNELS_LAST, "channels_last", size, c, d)
      for size, c in (((4, 8), 3), ((1, 257), 48), ((3, 11), 8), ((15, 17), 64)) for d in MIXED),
    *((FLOAT, layout, size, c, d) for layout in ("contiguous", "channels_last", "sliced", "expanded")
      for size, c in (((1, 1), 3), ((3, 11), 1), ((15, 17), 5)) for d in MIXED),
    (DOUBLE, "contiguous", (5, 7), 3, "float64"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "layout", "size", "channels", "dtypes"), ASSEMBLY)
def test_expert_assembly_bodies(driver, kind, layout, size, channels, dtypes):
    single = getattr(torch, dtypes.replace("mixed", "float32"))
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


LOGNORMAL = [  # kind, layout, size, channels, seeded, left, dtypes
    *((kind, layout, size, 3, True, left, d) for kind, layout, dtypes in (
        (PLANAR, "contiguous", ("float32", "bfloat16", "mixed")), (ONE_TYPE, "contiguous", UNIFORM),
        (TRIPLES, "channels_last", UNIFORM))
      for size, left in (((1, 8), 4), ((5, 16), 4), ((9, 264), 4), ((8, 13), 1022), ((24, 3), 1)) for d in dtypes),
    *((kind, "contiguous", (4, 14), 4, False, 0, d) for kind in (PLANAR, ONE_TYPE) for d in UNIFORM),
    *((FLOAT, layout, size, 3, seeded, left, d) for layout in ("contiguous", "channels_last", "sliced", "expanded")
      for size, left in (((1, 1), 3), ((3, 11), 0), ((31, 1), 2), ((5, 51), 1021)) for seeded in (True, False)
      for d in ("float32", "bfloat16", "mixed")),
    (DOUBLE, "contiguous", (5, 7), 3, True, 1, "float64"),
    (DOUBLE, "channels_last", (5, 7), 3, False, 1, "float64"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "layout", "size", "channels", "seeded", "left", "dtypes"), LOGNORMAL)
def test_lognormal_transition_bodies(driver, kind, layout, size, channels, seeded, left, dtypes):
    single = getattr(torch, dtypes.replace("mixed", "float32"))
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
