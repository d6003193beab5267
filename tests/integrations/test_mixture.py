"""Mixtures of experts, prompts and channels against plain sums in float64, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from f2d_kernels.integrations import channel_gates, mixture_of_experts, projected_experts, prompt_mixture

from .support import rejects

B, K, C, H, W = 3, 4, 5, 7, 6


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_same(adapter, formula, inputs):
    """Results and all gradients."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    exact = [x.double().requires_grad_() for x in inputs]
    found, expected = adapter(*leaves), formula(*exact)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    upstream = drawn(*found.shape)
    gradients = torch.autograd.grad(found, leaves, upstream)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, exact, upstream.double())):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("with_base", [False, True])
def test_experts_of_which_some_are_not_routed_to(with_base):
    outputs, gates, base = drawn(B, K, C, H, W), drawn(B, K).softmax(1), drawn(B, C, H, W)
    gates[:, 1] = 0

    def formula(outputs, gates, base):
        total = base if with_base else 0
        for k in range(K):
            total = total + gates[:, k, None, None, None] * outputs[:, k]
        return total + 0 * base

    for form in (lambda o: o, lambda o: o.unbind(1)):
        assert_same(
            lambda o, g, b, form=form: mixture_of_experts(form(o), g, b if with_base else None) + 0 * b,
            formula,
            [outputs, gates, base],
        )


@pytest.mark.parametrize("biases", [(True,) * K, (False,) * K, (True, False, True, False)])
def test_experts_that_end_in_a_projection(biases):
    torch.manual_seed(0)
    convs = [nn.Conv2d(8, C, 1, bias=bias) for bias in biases]
    features, gates, base = drawn(B, K, 8, H, W), drawn(B, K), drawn(B, C, H, W)

    def formula(features, gates, base):
        total = base
        for k, conv in enumerate(convs):
            bias = None if conv.bias is None else conv.bias.double()
            total = total + gates[:, k, None, None, None] * F.conv2d(features[:, k], conv.weight.double(), bias)
        return total

    assert_same(lambda f, g, b: projected_experts(f, convs, g, b), formula, [features, gates, base])
    projected_experts(features, convs, gates).sum().backward()
    plain = torch.autograd.grad(formula(features.double(), gates.double(), base.double()).sum(), convs[0].weight)[0]
    torch.testing.assert_close(convs[0].weight.grad, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [None, (13, 9)])
def test_prompts_shared_by_the_batch(size):
    prompts, weights = drawn(1, K, C, H, W), drawn(B, K).softmax(1)

    def formula(prompts, weights):
        mixed = (weights[:, :, None, None, None] * prompts.repeat(B, 1, 1, 1, 1)).sum(1)
        return mixed if size is None else F.interpolate(mixed, size, mode="bilinear")

    assert_same(lambda p, w: prompt_mixture(p, w, size), formula, [prompts, weights])
    assert torch.equal(prompt_mixture(prompts[0], weights, size), prompt_mixture(prompts, weights, size))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("shape", [(C,), (1, C, 1, 1)])
def test_gates_of_channels(scaled, shifted, shape):
    features, mask, scale, shift = drawn(B, C, H, W), drawn(B, C).sigmoid(), drawn(C) + 2, drawn(C).roll(1)

    def gated(f, m, scale, shift):
        found = channel_gates(f, m, scale.reshape(shape) if scaled else None, shift.reshape(shape) if shifted else None)
        return found + 0 * (scale.sum() + shift.sum())

    def formula(f, m, scale, shift):
        f = f * (scale if scaled else 0 * scale + 1)[:, None, None] + (shift if shifted else 0 * shift)[:, None, None]
        return f * m[:, :, None, None]

    assert_same(gated, formula, [features, mask, scale, shift])


def test_gates_of_channels_under_vmap_over_any_argument():
    given = drawn(B, C, H, W), drawn(B, C), drawn(C), drawn(C).roll(1)
    for place, one in enumerate(given):
        dims = tuple(0 if i == place else None for i in range(4))
        stacked = [torch.stack([t, 2 * t]) if i == place else t for i, t in enumerate(given)]
        found = torch.func.vmap(channel_gates, in_dims=dims)(*stacked)
        again = channel_gates(*(2 * one if i == place else t for i, t in enumerate(given)))
        torch.testing.assert_close(found, torch.stack([channel_gates(*given), again]))


def test_what_does_not_fit_is_said():
    rejects("1x1", lambda: projected_experts(drawn(B, 1, 8, H, W), [nn.Conv2d(8, C, 3)], drawn(B, 1)))
    features = drawn(B, 2, 8, H, W)
    for convs in ([nn.Conv2d(8, C, 1), nn.Conv2d(8, C + 1, 1)], []):
        rejects("one size", lambda convs=convs: projected_experts(features, convs, drawn(B, 2)))
    for convs in (nn.Conv2d(8, C, 1), None):
        rejects("a sequence", lambda convs=convs: projected_experts(features, convs, drawn(B, 2)), TypeError)
    rejects("prompts must be", lambda: prompt_mixture(drawn(2, K, C, H, W), drawn(2, K)))
    rejects("mask must be", lambda: channel_gates(drawn(B, C, H, W), drawn(B, C, 1)))
    rejects("mask must be", lambda: channel_gates(drawn(B, C, H, W), drawn(B, C + 1)))
    rejects("shift must be", lambda: channel_gates(drawn(B, C, H, W), drawn(B, C), None, drawn(B, C)))
    rejects("scale must be .*got float", lambda: channel_gates(drawn(B, C, H, W), drawn(B, C), 2.0))
    rejects("gates must be", lambda: mixture_of_experts(drawn(B, K, C, H, W), drawn(B, K + 1)))
