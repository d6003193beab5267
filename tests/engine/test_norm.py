"""The engine's normalisation: PyTorch's GroupNorm, by its own moments and by given ones."""

import pytest
import torch

from f2d.engine.layers import Norm, moments


def normalisation(silu: bool, film: bool):
    """(engine's layer, its scale and shift or None, x -> the same by PyTorch's modules), of 12 channels in 3 groups."""
    torch.manual_seed(0)
    plain = torch.nn.GroupNorm(3, 12).double().requires_grad_(False)
    torch.nn.init.normal_(plain.weight), torch.nn.init.normal_(plain.bias)
    scale, shift = torch.randn(2, 12, dtype=torch.float64) if film else torch.zeros(2, 12, dtype=torch.float64)

    def expected(x: torch.Tensor) -> torch.Tensor:
        out = plain(x) * (1 + scale[:, None, None]) + shift[:, None, None]
        return torch.nn.functional.silu(out) if silu else out

    return Norm(plain, silu), (scale, shift) if film else None, expected


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("film", [False, True])
def test_norm_is_group_norm(silu, film):
    layer, constants, expected = normalisation(silu, film)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64) * 3 + 50
    out, mean = layer(x, constants, return_mean=True)
    torch.testing.assert_close(out, expected(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(mean, expected(x).mean(dim=(2, 3)), rtol=0, atol=1e-11)
    assert torch.equal(layer(x, constants), out)


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("film", [False, True])
def test_rows_by_the_moments_of_the_image_are_rows_of_its_normalisation(silu, film):
    layer, constants, expected = normalisation(silu, film)
    x = torch.randn(2, 12, 9, 7, dtype=torch.float64) * torch.arange(1, 10)[:, None] + 50
    rows = x[:, :, 2:5].clone()
    found = layer.given(rows, moments(x, layer.groups, layer.eps), constants)
    torch.testing.assert_close(found, expected(x)[:, :, 2:5], rtol=0, atol=1e-11)
    assert (layer(rows, constants) - found).abs().max() > 0.1  # their own moments are others
    assert torch.equal(rows, x[:, :, 2:5])  # and the rows are not written to


def test_moments_far_from_zero():
    """A mean of a thousand standard deviations, in float32."""
    x = torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1000
    mean, rstd = moments(x.float(), 2, 1e-5)
    groups = x.unflatten(1, (2, 4)).flatten(2)
    torch.testing.assert_close(mean.double(), groups.mean(dim=2).repeat_interleave(4, dim=1), rtol=1e-6, atol=0)
    exact = (groups.var(dim=2, correction=0) + 1e-5).rsqrt().repeat_interleave(4, dim=1)
    torch.testing.assert_close(rstd.double(), exact, rtol=1e-3, atol=0)
