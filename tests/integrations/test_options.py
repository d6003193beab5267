"""Options of the adapters: numbers of Python, NumPy and PyTorch are one, and what is no number is refused by name."""

import fractions
import math

import numpy as np
import pytest
import torch
from torch import nn

from f2d_kernels.integrations import (
    DDIM,
    GOUB,
    IRSDE,
    FoD,
    ResidualDiffusion,
    ResShift,
    channel_gates,
    projected_experts,
)

from .support import images, rejects

A = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
R = torch.linspace(0.1, 0.9, 20, dtype=torch.float64)

# "class option" -> (the class with that option, a value that is right)
NUMBERS = {
    "FoD dt": (lambda v: FoD(R, R, v), 0.5),
    "IRSDE max_sigma": (lambda v: IRSDE(v, 9), 0.5),
    "IRSDE eps": (lambda v: IRSDE(10, 9, eps=v), 0.5),
    "GOUB max_sigma": (lambda v: GOUB(v, 9), 0.5),
    "ResidualDiffusion eta": (lambda v: ResidualDiffusion(R, R, eta=v), 0.5),
    "ResidualDiffusion clip": (lambda v: ResidualDiffusion(R, R, clip=v), 0.5),
    "DDIM eta": (lambda v: DDIM(A, eta=v), 0.5),
    "DDIM clip": (lambda v: DDIM(A, clip=v), 0.5),
    "DDIM final": (lambda v: DDIM(A * 0.1, final=v), 0.5),
    "ResShift kappa": (lambda v: ResShift(R, v), 0.5),
    "ResShift clip": (lambda v: ResShift(R, clip=v), 0.5),
    "ResShift power": (lambda v: ResShift.exponential(power=v), 0.5),
    "ResShift min_noise_level": (lambda v: ResShift.exponential(min_noise_level=v), 0.5),
    "ResShift etas_end": (lambda v: ResShift.exponential(etas_end=v), 0.5),
}
COUNTS = {
    "FoD steps": (lambda v: FoD(R, R, 0.1, v), 3),
    "IRSDE steps": (lambda v: IRSDE(10, v), 3),
    "GOUB steps": (lambda v: GOUB(10, v), 3),
    "ResidualDiffusion times": (lambda v: ResidualDiffusion(R, R, v), 3),
    "DDIM stride": (lambda v: DDIM(A, stride=v), 3),
    "DDIM times": (lambda v: DDIM(A, [v]), 3),
    "ResShift steps": (lambda v: ResShift.exponential(v), 3),
}
FLAGS = {
    "ResidualDiffusion denoise": lambda v: ResidualDiffusion(R, R, denoise=v),
    "DDIM rederive": lambda v: DDIM(A, rederive=v),
}
LEVELS = {
    "FoD theta": lambda v: FoD(v, R, 0.1),
    "IRSDE schedule": lambda v: IRSDE(10, 19, v),
    "ResidualDiffusion beta_bar": lambda v: ResidualDiffusion(R, v),
    "ResShift etas": lambda v: ResShift(v),
}
TIMES = {
    "DDIM times": lambda v: DDIM(A, v),
    "ResidualDiffusion times": lambda v: ResidualDiffusion(R, R, v),
}


def same(one, other):
    assert one.times == other.times and [*one._buffers] == [*other._buffers]
    assert all(torch.equal(a, b) for a, b in zip(one._buffers.values(), other._buffers.values()))
    assert getattr(one, "clip", 0) == getattr(other, "clip", 0)


@pytest.mark.parametrize("name", [*NUMBERS, *COUNTS])
def test_numbers_of_all_libraries_are_one(name):
    call, value = (NUMBERS | COUNTS)[name]
    kinds = [np.array, torch.tensor]
    kinds += [] if name == "ResidualDiffusion times" else [lambda v: torch.tensor([v])]  # there it is a list of times
    kinds += [np.int64, np.uint8] if name in COUNTS else [np.float64, np.float32, np.float16, fractions.Fraction]
    for kind in kinds:
        same(call(kind(value)), call(value))


@pytest.mark.parametrize("name", [*NUMBERS, *COUNTS])
def test_what_is_no_number_is_refused_by_name(name):
    call, value = (NUMBERS | COUNTS)[name]
    owner, option = name.split()
    wrong = [True, np.bool_(True), torch.tensor(True), "3", 1j, {3: 4}]
    if name != "ResidualDiffusion times":  # which takes sequences
        wrong += [[3, 2], np.array([3, 2]), torch.tensor([3, 2])]
    wrong += [] if name in COUNTS else [torch.tensor(1j)]
    wrong += [float(value), np.float32(value), torch.tensor(float(value)), 2.5] if name in COUNTS else []
    for v in wrong:
        rejects(f"^{owner}: {option} must be", lambda v=v: call(v), TypeError)
    for v in (math.nan, -1.0) if name in NUMBERS else (0, -1, 10**6):
        if name not in ("DDIM times", "DDIM stride", "IRSDE steps", "GOUB steps", "ResShift steps") or v < 0:
            rejects(f"^{owner}: ", lambda v=v: call(v))


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_flags(name):
    owner, option = name.split()
    for v in (np.bool_(False), torch.tensor(False)):
        same(FLAGS[name](v), FLAGS[name](False))
    for v in ("False", 0, None, 1.0):
        rejects(f"^{owner}: {option} must be True or False", lambda v=v: FLAGS[name](v), TypeError)


@pytest.mark.parametrize("name", LEVELS)
def test_schedules_of_all_libraries_are_one(name):
    call, (owner, option) = LEVELS[name], name.split()
    plain = call(R.tolist())
    for kind in (torch.Tensor.tolist, torch.Tensor.numpy, lambda v: np.array(v.tolist()[::-1])[::-1], list, tuple):
        same(call(kind(R)), plain)
    same(call(R.float().numpy()), call(R.float()))
    same(call(R.clone().requires_grad_()), plain)
    for v in (None, 3, "abc", {1: 2}, R.bool(), R + 1j, [True] * 20, ["a"] * 20, R[:, None], [[0.5]] * 20, object()):
        named = owner == "IRSDE" and isinstance(v, str)  # its schedules have names
        rejects(f"^{owner}: {option} must be", lambda v=v: call(v), ValueError if named else TypeError)
    for v in ([], [math.nan] * 20, [math.inf] * 20, torch.zeros(0)):
        rejects(f"^{owner}: {option} must hold T finite numbers", lambda v=v: call(v))


@pytest.mark.parametrize("name", TIMES)
def test_times_of_all_libraries_are_one(name):
    call, (owner, option) = TIMES[name], name.split()
    plain = call([17, 5, 2])
    for kind in (tuple, np.array, torch.tensor, lambda v: torch.tensor(v, dtype=torch.int32), lambda v: map(int, v)):
        if name == "DDIM times" or kind is not tuple:
            same(call(kind([17, 5, 2])), plain)
    for v in ([17.0, 5.0], [17.5, 5.2], torch.tensor([17.0, 5.0]), np.array([17.0]), "ab", [True], [[3]], {3: 1}):
        rejects(f"^{owner}: {option} must be", lambda v=v: call(v), TypeError)
    for v in ([], [5, 17], [5, 5], [-1], [1000]):
        rejects(f"^{owner}: {option} must fall", lambda v=v: call(v))


def test_the_clamp_of_every_sampler_is_checked():
    for clamp in ((1.0, -1.0), (math.nan, 1.0), (0.0,), 3.0, "ab", {1: 2, 3: 4}):
        rejects("^FoD: clamp must be", lambda clamp=clamp: FoD(R, R, 0.1, clamp=clamp))
    rejects("^FoD: clamp must be", lambda: FoD(R, R, 0.1, clamp=(True, 1.0)), TypeError)
    x, p = images(2)
    for sampler in ("MC", "EM"):
        kinds = [np.float32(-1), 1], (-1.0, 1.0)
        found, wanted = (FoD(R, R, 0.1, clamp=c).step(x, p, 3, sampler, seed=1) for c in kinds)
        assert torch.equal(found[0], wanted[0])


def test_numpy_seeds_follow_the_time_too():
    x, p = images(2)
    process = DDIM(A, eta=1.0)
    for kind in (np.int64, np.int32, np.uint64):
        for t in (5, torch.tensor(900)):
            assert torch.equal(process.step(x, p, t, seed=kind(7)), process.step(x, p, t, seed=7))
    assert torch.equal(process.step(x[:1], p[:1], 5, seed=np.int64(7)), process.step(x[:1], p[:1], 5, seed=7))


class Quantised(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).round()


class Adapted(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, 2 * weight, bias)


def test_convolutions_that_do_more_than_convolve_are_refused():
    features, gates = torch.rand(2, 1, 8, 4, 5), torch.rand(2, 1)
    hooked, patched = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 1)
    hooked.register_forward_hook(lambda module, given, out: out + 1)
    patched.forward = lambda x: x[:, :3]
    watched = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 3, 1)
    watched[0].register_full_backward_hook(lambda *given: None)
    watched[1].register_full_backward_pre_hook(lambda *given: None)
    normed = nn.utils.spectral_norm(nn.Conv2d(8, 3, 1))
    for conv in (Quantised(8, 3, 1), Adapted(8, 3, 1), hooked, patched, normed, *watched):
        rejects("without hooks or a forward", lambda conv=conv: projected_experts(features, [conv], gates))
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, out: 2 * out)
    try:
        rejects("without hooks", lambda: projected_experts(features, [nn.Conv2d(8, 3, 1)], gates))
    finally:
        handle.remove()
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 3, 1))  # its weight is what it convolves with
    expected = gates[:, :, None, None] * normed(features[:, 0])
    torch.testing.assert_close(projected_experts(features, [normed], gates), expected)


def test_a_seed_on_another_device_is_named():
    x, process = torch.zeros(2, 3, 4, 5, device="meta"), DDIM([0.9, 0.5, 0.1], eta=1.0).to("meta")
    for t in (1, torch.tensor([1, 2], device="meta")):
        for seed in (torch.tensor([7]), torch.tensor([7, 8])):
            rejects("seed must be on meta .*got cpu", lambda t=t, seed=seed: process.step(x, x, t, seed=seed))


def test_channel_gates_have_the_dtype_of_the_formula():
    given = torch.rand(2, 3, 4, 5), torch.rand(2, 3), torch.rand(3)
    kinds = {16: torch.bfloat16, 32: torch.float32, 64: torch.float64}
    for dtypes in ((32, 32, 64), (64, 32, 32), (32, 64, 32), (16, 16, 32), (16, 32, 16), (16, 16, 16)):
        x, mask, shift = (t.to(kinds[d]) for t, d in zip(given, dtypes))
        wanted = (x + shift[:, None, None]) * mask[..., None, None]
        found = channel_gates(x, mask, None, shift)
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    rejects("^channel_gates: features must be", lambda: channel_gates(torch.rand(2, 2, 2, 4, 5), torch.rand(2, 2)))
    rejects("^channel_gates: features must be", lambda: channel_gates([1.0], mask))
