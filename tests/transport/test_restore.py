"""Restoration of tensors: determinism, one call against many, augmentation, sizes, errors."""

import pytest
import torch

from f2d import restore_tensor
from f2d.engine.execution import choose_execution
from f2d.engine.restorer import Restorer

GREY_LEVEL = 2 / 255


def image(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 47)])
@pytest.mark.parametrize("sampler", ["MC", "NMC"])
def test_any_size_and_a_seed_decides(make_net, size, sampler):
    net, y = make_net(patch=2), image(2, 3, *size)
    restored = restore_tensor(net, y, steps=3, sampler=sampler, seed=7)
    assert restored.shape == y.shape and restored.dtype == torch.float32 and restored.abs().max() <= 1
    assert torch.equal(restored, restore_tensor(net, y, steps=3, sampler=sampler, seed=7))
    assert not torch.equal(restored, restore_tensor(net, y, steps=3, sampler=sampler, seed=8))


def test_a_network_in_training_goes_back_to_it_by_its_own_method(make_net, monkeypatch):
    """Layers such as those of LoRA merge their weights for evaluation there, and separate them for training."""
    net, modes = make_net().train(), []
    monkeypatch.setattr(net, "train", lambda mode=True: modes.append(mode) or type(net).train(net, mode))
    frozen = next(net.children()).eval()
    before = [module.training for module in net.modules()]
    restore_tensor(net, image(1, 3, 8, 8), steps=1)
    assert modes == [False, True] and not frozen.training
    assert [module.training for module in net.modules()] == before


def test_torch_manual_seed_governs_unseeded_calls(make_net):
    net, y = make_net(), image(1, 3, 8, 8)
    torch.manual_seed(3)
    first, second = restore_tensor(net, y, steps=3), restore_tensor(net, y, steps=3)
    torch.manual_seed(3)
    assert torch.equal(first, restore_tensor(net, y, steps=3)) and not torch.equal(first, second)


def test_one_call_is_the_prediction_within_a_quarter_of_a_grey_level(make_net):
    net, y = make_net(), image(2, 3, 24, 24)
    mean = restore_tensor(net, y, sampler="mean")
    with torch.no_grad():
        analysis = net.analyse(y)
        x_0 = analysis.enhanced
        predicted = (x_0 + net.velocity(x_0, analysis, 0).prediction).clamp(-1, 1)
    assert torch.equal(mean, predicted)
    sample = restore_tensor(net, y, seed=0)
    assert not torch.equal(sample, mean)
    # root mean square: exp(M + S²) = 0.001 e^0.82 of the residual; single pixels of the tail may lie further away
    assert (sample - mean).square().mean().sqrt() < GREY_LEVEL / 4
    assert (restore_tensor(net, y, steps=10, seed=0) - mean).square().mean().sqrt() > GREY_LEVEL / 4


def test_the_image_is_analysed_once(make_net, monkeypatch):
    net, calls = make_net(), []
    analyse = net.analyse
    monkeypatch.setattr(net, "analyse", lambda y: calls.append(1) or analyse(y))
    restore_tensor(net, image(1, 3, 8, 8), steps=5)
    assert len(calls) == 1


def test_augmentation_averages_identity_and_flips(make_net):
    net, y = make_net(), image(1, 3, 10, 14)
    noise = torch.randn(2, 1, 3, 10, 14, generator=torch.Generator().manual_seed(2))
    total = torch.zeros_like(y)
    for flip in ([], [2], [3], [2, 3]):
        total += restore_tensor(net, y.flip(flip), steps=2, noise=noise.flip([d + 1 for d in flip])).flip(flip)
    torch.testing.assert_close(restore_tensor(net, y, steps=2, noise=noise, tta=True), total / 4)
    mirrored = restore_tensor(net, y.flip(3), sampler="mean", tta=True).flip(3)
    torch.testing.assert_close(mirrored, restore_tensor(net, y, sampler="mean", tta=True))


@pytest.mark.parametrize("target", ["FLOW", "FINAL_X"])
def test_the_target_of_the_configuration_is_used(make_net, target):
    net, y = make_net(target=target), image(1, 3, 8, 8)
    with torch.no_grad():
        analysis = net.analyse(y)
        v = net.velocity(analysis.enhanced, analysis, 0).prediction
    expected = (v if target == "FINAL_X" else analysis.enhanced + v).clamp(-1, 1)
    assert torch.equal(restore_tensor(net, y, sampler="mean"), expected)


def test_the_schedule_of_the_configuration_is_used(make_net):
    """On the straight path there is no noise, and half of the way is half of the residual."""
    net, y = make_net(theta="straight", sigma2="none", num_steps=10), image(1, 3, 8, 8)
    assert torch.equal(restore_tensor(net, y, steps=2, seed=1), restore_tensor(net, y, steps=2, seed=2))
    with torch.no_grad():
        analysis = net.analyse(y)
        x = analysis.enhanced
        for t, share in ((0, 0.5), (5, 1.0)):
            v = net.velocity(x, analysis, t).prediction
            x = x + share * ((x + v).clamp(-1, 1) - x)
    torch.testing.assert_close(restore_tensor(net, y, steps=2), x, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="steps must be 1 to 10, got 11"):
        restore_tensor(net, y, steps=11)


def test_mode_and_gradients_of_the_network_are_left_alone(make_net):
    net, y = make_net(gate_noise=5.0).train(), image(1, 3, 8, 8)
    first = restore_tensor(net, y, seed=1)
    assert net.training and not first.requires_grad
    assert torch.equal(first, restore_tensor(net, y, seed=1))  # no gate noise


def test_half_precision_network(make_net):
    net, y = make_net(), image(1, 3, 16, 16)
    exact = restore_tensor(net, y, steps=2, seed=1)
    rounded = restore_tensor(net.to(torch.bfloat16), y, steps=2, seed=1)
    assert rounded.dtype == torch.float32 and (rounded - exact).abs().mean() < 0.05


def test_errors(make_net):
    net, y = make_net(), image(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"y must be \[B, 3, H, W\].*got \(3, 8, 8\)"):
        restore_tensor(net, y[0])
    with pytest.raises(TypeError, match=r"y must be a tensor.*got ndarray"):
        restore_tensor(net, y.numpy())
    with pytest.raises(TypeError, match=r"noise must be a tensor.*got ndarray"):
        restore_tensor(net, y, noise=y[None].numpy())
    with pytest.raises(TypeError, match=r"must hold floating-point values in \[-1, 1\], got torch\.uint8"):
        restore_tensor(net, y.to(torch.uint8))
    with pytest.raises(ValueError, match="y must be on the network's device cpu, got meta"):
        restore_tensor(net, y.to("meta"))
    with pytest.raises(
        ValueError, match=r"noise must be \(2, 2, 3, 8, 8\), one tensor per step, got \(1, 2, 3, 8, 8\)"
    ):
        restore_tensor(net, y, steps=2, noise=torch.zeros(1, 2, 3, 8, 8))
    with pytest.raises(ValueError, match="steps must be 1 to 100, got 101"):
        restore_tensor(net, y, steps=101)
    with pytest.raises(ValueError, match=r"sampler must be one of MC, NMC, EM, mean.*got 'DDIM'"):
        restore_tensor(net, y, sampler="DDIM")


def test_the_warning_of_em_points_at_the_caller(make_net):
    net, y = make_net(), image(1, 3, 8, 8)
    restorer = Restorer(net, choose_execution("cpu", "float32"))
    for call in (
        lambda: restore_tensor(net, y, sampler="EM", steps=2, seed=0),
        lambda: restore_tensor(net, y, sampler="EM", steps=2, seed=0, tta=True),
        lambda: restorer.restore_batch((y + 1) / 2, sampler="EM", steps=2, seed=0),
    ):
        with pytest.warns(RuntimeWarning, match="stop short") as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}
