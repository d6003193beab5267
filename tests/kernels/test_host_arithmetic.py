"""The arithmetic of csrc's headers on the host: generator, normals, exponential, fma, 16-bit conversions."""

import numpy as np
import pytest
import torch

from .textbook_noise import KNOWN_ANSWERS
from .tolerances import NORMAL


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
    z = np.concatenate([np.linspace(-87, 20, 500001), rng.normal(size=100000), 10.0 ** rng.uniform(-30, 0, 100000)])
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
