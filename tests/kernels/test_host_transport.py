"""The bodies of transport_step's CUDA kernels on the host, against float64."""

import numpy as np
import pytest
import torch

from .cases import lay_out, random
from .host_bodies import BITS, assert_near, poisoned
from .host_driver import DOUBLE, FLOAT, ONE_TYPE, PLANAR, TRIPLES
from .textbook_noise import textbook_eps

MIXED, UNIFORM = ("float32", "bfloat16", "mixed"), ("float32", "bfloat16")
TRANSPORT = [  # kind, whether the experts get gradients, layout, size, channels, seeded, left, dtypes
    *((kind, fused, layout, size, 3, True, left, d) for kind, layout, dtypes in (
        (PLANAR, "contiguous", MIXED), (ONE_TYPE, "contiguous", UNIFORM), (TRIPLES, "channels_last", UNIFORM))
      for size, left in (((1, 8), 4), ((5, 16), 4), ((9, 264), 4), ((8, 13), 1022)) for fused in (False, True)
      for d in dtypes),
    *((kind, fused, "contiguous", (4, 14), 4, False, 0, d) for kind, dtypes in ((PLANAR, MIXED), (ONE_TYPE, UNIFORM))
      for fused in (False, True) for d in dtypes),
    *((FLOAT, False, layout, size, 3, seeded, left, d)
      for layout in ("contiguous", "channels_last", "sliced", "expanded")
      for size, left in (((1, 1), 3), ((3, 11), 0), ((5, 51), 1021)) for seeded in (True, False) for d in MIXED),
    (DOUBLE, False, "contiguous", (5, 7), 3, True, 1, "float64"),
    (DOUBLE, False, "channels_last", (5, 7), 3, False, 1, "float64"),
]  # fmt: skip
FORMS = [  # experts, gates per channel, deltas as a list, maps, base, anchor
    *((1, 0, 0, 1, 1, 1), (2, 1, 1, 0, 0, 1), (3, 0, 1, 1, 1, 0), (4, 1, 0, 1, 0, 0), (7, 0, 0, 1, 1, 0)),
]


@pytest.mark.parametrize(("kind", "fused", "layout", "size", "channels", "seeded", "left", "dtypes"), TRANSPORT)
def test_transport_step_bodies(driver, kind, fused, layout, size, channels, seeded, left, dtypes):
    """What follows mu is held against the mu that the kernel stores, so that its rounding to 16 bits hides nothing."""
    double = kind == DOUBLE
    single = getattr(torch, dtypes.replace("mixed", "float32"))
    other = torch.bfloat16 if dtypes == "mixed" else single
    batch, position, clamp = 2, (65535, 7, left), (-0.75, 1.0)
    dense = "channels_last" if layout == "channels_last" else "contiguous"
    of_noise = torch.float64 if double and not seeded else torch.float32
    seed = torch.tensor([-(2**63) + 5, 12345678901234567]) if seeded else None
    if seeded:
        places = np.ndindex(batch, channels, *size)
        eps_of = [textbook_eps(int(seed[b]), 65535, 0, c, 7 + y, left + w) for b, c, y, w in places]
        drawn = torch.tensor(eps_of).view(batch, channels, *size)
    for experts, per_channel, listed, with_maps, with_base, with_anchor in FORMS:
        if fused and experts > 4:
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
        driver.transport_forward(kind, x_next, mu, arguments, position, clamp)

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
        wide = torch.promote_types(single, torch.float32)
        unrounded = (
            None if fused or (kind in (ONE_TYPE, TRIPLES) and single != wide) else poisoned(x, dense, dtype=wide)
        )
        d_deltas, d_maps = [poisoned(t, dense) for t in given], None if maps is None else poisoned(maps)
        d_mean, d_std, d_gates = driver.transport_backward(
            *(kind, fused, grad_x, grad_mu, arguments, position, clamp, d_deltas),
            **{"d_maps": d_maps, "d_x": d_x, "d_mu": d_mu, "d_noise": d_noise, "v": unrounded},
        )
        q, h = grad_x.double(), grad_mu.double()
        inside = (total > clamp[0]) & (total < clamp[1])
        # at a bound, rounding decides
        at_bound = sum((total - bound).abs() <= size_of_total * rounding + 1e-6 for bound in clamp) > 0
        v = torch.where(torch.where(at_bound, d_mu != 0, inside), h + q * (1 - f), 0.0)
        size_of_v = h.abs() + q.abs() * (1 + f * loose)
        assert_near(d_mu, v, size_of_v.to(of_noise), "v")
        if unrounded is not None:  # what the assembly's kernel makes the experts' gradients from, whatever d_mu is
            assert_near(unrounded, v, size_of_v.to(of_noise), "v in the compute type")
        share = v if anchor is None else 0 * v
        assert_near(d_x, q * f + share, (q.abs() * f * loose + size_of_v).to(of_noise), "d_x")
        slope, size_of_slope = q * d * f, q.abs() * (d.abs() + start.abs() + deep_mu.abs()) * f * loose
        if not seeded:
            assert_near(d_noise, slope * std, (size_of_slope * std.abs()).to(of_noise), "d_noise")
        axes = (1, 2, 3)
        assert_near(d_mean, slope.sum(axes), size_of_slope.sum(axes).float(), "d_log_mean")
        assert_near(d_std, (slope * eps).sum(axes), (size_of_slope * (1 + eps.abs())).sum(axes).float(), "d_log_std")
        if not fused:
            continue
        v, size_of_v = v[:, None], size_of_v[:, None]
        full, size_of_full = (g * m * v).expand(deltas.shape), (g * m * size_of_v).abs().expand(deltas.shape)
        assert_near(torch.stack(d_deltas, 1) if listed else d_deltas[0], full, size_of_full.float(), "d_deltas")
        products, sizes = deltas.double() * v, deltas.double().abs() * size_of_v
        if maps is not None:
            assert_near(d_maps, (g * products).sum(2), (g.abs() * sizes).sum(2).float(), "d_maps")
        axes = (3, 4) if per_channel else (2, 3, 4)
        assert_near(d_gates, (m * products).sum(axes), (m.abs() * sizes).sum(axes).float(), "d_gates")
