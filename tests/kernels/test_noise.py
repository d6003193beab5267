"""The position-keyed generator: known answers, values at positions, and what must not change a pixel's noise."""

import numpy as np
import pytest
import torch

from f2d_kernels import gaussian_transition, lognormal_transition, transport_step
from f2d_kernels.reference.philox import normal, philox, uniform

from .cases import DEVICE
from .support import ALL_BACKENDS, running_on
from .textbook_noise import KNOWN_ANSWERS, drawn, textbook_eps
from .tolerances import NORMAL


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_known_answers(counter, key, words):
    out = philox(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert tuple(int(w) for w in out) == words


def test_uniform_covers_the_half_open_interval():
    u = uniform(torch.tensor([0, 1, 2**31, 2**32 - 1]))
    assert u.dtype == torch.float32
    assert u.min() == 2.0**-33 and u.max() == 1.0


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_eps_is_the_textbook_value_at_every_position(backend):
    seed, stream, top, left = 0xDEADBEEF12345678, 77, 1021, 4093
    with running_on(backend):
        eps = drawn((2, 3, 2, 9), seed, stream=stream, window=(top, left))
    for b, c, y, x in np.ndindex(2, 3, 2, 9):
        assert abs(float(eps[b, c, y, x]) - textbook_eps(seed, stream, b, c, top + y, left + x)) <= NORMAL


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_eps_is_within_its_bound_of_float64(backend):
    shape = (1, 3, 32, 33) if backend == "triton" else (2, 3, 255, 257)
    with running_on(backend):
        eps = drawn(shape, 11)
    exact = normal(torch.Size(shape), torch.tensor([11], device=DEVICE), 0, 0, 0)
    assert (eps - exact).abs().max() <= NORMAL


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("window", [(0, 0), (1, 1), (2, 3), (7, 6), (5, 8)])
def test_a_tile_draws_what_the_whole_image_draws(backend, window):
    top, left = window
    with running_on(backend):
        whole = drawn((2, 3, 16, 24), 5, stream=2)
        tile = drawn((2, 3, 9, 13), 5, stream=2, window=window)
    assert torch.equal(tile, whole[..., top : top + 9, left : left + 13])


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_padding_batching_and_memory_layout_do_not_matter(backend):
    with running_on(backend):
        image = drawn((1, 3, 10, 11), 5)
        assert torch.equal(drawn((1, 3, 16, 16), 5)[..., :10, :11], image)
        assert torch.equal(drawn((3, 3, 10, 11), 5)[:1], image)
        seeds = torch.tensor([9, 5, 7], device=DEVICE)
        assert torch.equal(drawn((3, 3, 10, 11), seeds)[1:2], image)
        spread = torch.tensor([9, 0, 5, 0, 7, 0], device=DEVICE)[::2]
        assert torch.equal(drawn((3, 3, 10, 11), spread)[1:2], image)
        assert torch.equal(drawn((2, 3, 10, 11), torch.tensor(5, device=DEVICE).expand(2))[1:], image)
        state = torch.ones(1, 3, 10, 11, device=DEVICE, dtype=torch.float64).contiguous(
            memory_format=torch.channels_last
        )
        last = lognormal_transition(state, torch.zeros_like(state), 0.0, 1.0, seed=5).log()
    assert torch.equal(last, image)


# Every op that draws noise, on x [B,C,H,W].
DRAWING = {
    "lognormal_transition": lambda x, **noise: lognormal_transition(x, x, -1.0, 0.5, **noise),
    "gaussian_transition": lambda x, **noise: gaussian_transition([x], [1.0], 0.5, **noise),
    "transport_step": lambda x, **noise: transport_step(x, [x], x.new_ones(1, 1), None, None, -1.0, 0.5, **noise)[0],
}


@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("op", DRAWING)
def test_noise_that_another_stream_draws_is_refused(backend, op):
    """Channel 65536 of stream 1 would be channel 0 of stream 2, and stream 65536 would be stream 0."""
    wide, image = torch.zeros(1, 65537, 1, 1, device=DEVICE), torch.zeros(1, 1, 1, 4, device=DEVICE)
    with running_on(backend):
        for source in ({"seed": 1}, {"seed": torch.tensor([1], device=DEVICE)}, {"generator": torch.Generator()}, {}):
            with pytest.raises(ValueError, match=f"{op}: noise is drawn for at most 65536 channels, got C = 65537"):
                DRAWING[op](wide, stream=1, **source)
        for stream in (-1, 65536, 2**32):
            with pytest.raises(ValueError, match=f"{op}: stream must lie in 0..65535, got {stream}"):
                DRAWING[op](image, seed=1, stream=stream)
        assert DRAWING[op](image, seed=1, stream=65535).isfinite().all()


@pytest.mark.parametrize("backend", ["reference", "cpp", "cuda"])
def test_the_last_channel_of_a_stream_is_its_own(backend):
    with running_on(backend):
        last = drawn((1, 65536, 1, 4), 5, stream=1)[:, 65535:]
        assert (last != drawn((1, 1, 1, 4), 5, stream=2)).all()
        given = torch.ones(1, 65537, 1, 1, device=DEVICE)  # given noise has no such limit
        assert torch.equal(lognormal_transition(given, 0 * given, 0.0, 0.0, noise=given), given)
    for x in range(4):
        assert abs(float(last[0, 0, 0, x]) - textbook_eps(5, 1, 0, 65535, 0, x)) <= NORMAL


RAW = torch.ops.f2d_kernels


@pytest.mark.parametrize("op", ["lognormal_transition", "gaussian_transition", "transport_step"])
def test_ops_called_without_their_public_function_check_their_noise(op):
    """Both directions: the noise of a backward pass must not be that of another stream either."""

    def call(backward, shape=(1, 2, 1, 4), noise=None, seed=(3,), position=(0, 0, 0)):
        x, one = torch.ones(shape, device=DEVICE), torch.ones(1, device=DEVICE)
        seed = None if seed is None else torch.tensor(seed, device=DEVICE)
        noise = noise if noise is None else torch.ones(noise, device=DEVICE)
        inputs = {
            "lognormal_transition": (x, x, one, one),
            "gaussian_transition": ([x], one[None], one),
            "transport_step": (x, [x], one[None], None, None, one, one, None, -1.0, 1.0),
        }[op]
        arguments = (*inputs, noise, seed, *position)
        if not backward:
            return getattr(RAW, op).default(*arguments)
        grads = (x, x) if op == "transport_step" else (x,)
        layout = [False, False] if op == "transport_step" else False
        needs = [True] * 3 + [False] * 6 if op == "transport_step" else [True] * (3 if op[0] == "g" else 2)
        needs += [False] * ({"l": 5, "g": 4, "t": 9}[op[0]] - len(needs))
        return getattr(RAW, f"{op}_backward").default(*grads, *arguments, layout, needs, "auto")

    for backward in (False, True):
        call(backward)
        with pytest.raises(ValueError, match=f"{op}: noise is drawn for at most 65536 channels, got C = 65537"):
            call(backward, shape=(1, 65537, 1, 1))
        for stream in (-1, 65536):
            with pytest.raises(ValueError, match=f"{op}: stream must lie in 0..65535, got {stream}"):
                call(backward, position=(stream, 0, 0))
        with pytest.raises(ValueError, match=f"{op}: window .* must lie in"):
            call(backward, position=(0, -1, 0))
        with pytest.raises(ValueError, match=f"{op}: give exactly one of noise and seed"):
            call(backward, seed=None)
        with pytest.raises(ValueError, match=f"{op}: give exactly one of noise and seed"):
            call(backward, noise=(1, 2, 1, 4))
        with pytest.raises(ValueError, match=f"{op}: noise must be the shape of the result"):
            call(backward, noise=(1, 2, 1, 3), seed=None)
        with pytest.raises(ValueError, match=f"{op}: seed must hold one element or one per sample"):
            call(backward, seed=(1, 2))
        with pytest.raises(TypeError, match=f"{op}: a seed tensor must be int64"):
            call(backward, seed=(1.0,))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_seeds_streams_samples_and_channels_all_differ(backend):
    with running_on(backend):
        one = drawn((2, 2, 8, 8), 5)
        others = [drawn((2, 2, 8, 8), 6), drawn((2, 2, 8, 8), 5 + 2**32), drawn((2, 2, 8, 8), 5, stream=1)]
    pictures = [one[0, 0], one[0, 1], one[1, 0], *(other[0, 0] for other in others)]
    for i, first in enumerate(pictures):
        for second in pictures[:i]:
            assert (first != second).all()


def test_without_a_source_torch_manual_seed_governs():
    x, mu = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    torch.manual_seed(3)
    first, second = (lognormal_transition(x, mu, -1.0, 1.0) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(lognormal_transition(x, mu, -1.0, 1.0), first)
    assert not torch.equal(first, second)
    a, b = (lognormal_transition(x, mu, -1.0, 1.0, generator=torch.Generator().manual_seed(8)) for _ in range(2))
    assert torch.equal(a, b)
