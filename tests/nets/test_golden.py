"""Numerical parity with the authors' network and samplers on the golden case (1e-4 max abs, float32)."""

import pytest
import torch

from f2d import restore_tensor
from f2d.transport import LogNormalSchedule, target_of

TOLERANCE = {"rtol": 0.0, "atol": 1e-4}


@pytest.fixture
def output(golden, golden_net, backend):
    with torch.no_grad():
        return golden_net(golden["x_t"], golden["degraded"], golden["t"])


READ = {
    "enhanced": lambda out: out.analysis.enhanced,
    "enhancer_gate": lambda out: out.analysis.enhancer_gate,
    "factor_weights": lambda out: out.analysis.weights,
    "factor_logits": lambda out: out.analysis.logits,
    "maps": lambda out: out.analysis.maps,
    "freq_embedding": lambda out: out.frequency_embedding,
    "shared_velocity": lambda out: out.shared_velocity,
    "gates": lambda out: out.gates,
    "deltas": lambda out: out.deltas,
    "prediction": lambda out: out.prediction,
}


@pytest.mark.parametrize("name", READ)
def test_intermediate(golden, output, name):
    torch.testing.assert_close(READ[name](output), golden[name], **TOLERANCE)


def test_state(golden, golden_net, backend):
    with torch.no_grad():
        x_0 = golden_net.analyse(golden["degraded"]).enhanced
    x_t = LogNormalSchedule.named().sample(x_0, golden["clean"], golden["t"], noise=golden["noise"])
    torch.testing.assert_close(x_t, golden["x_t"], **TOLERANCE)


@pytest.mark.parametrize("sampler", ["mc", "nmc"])
def test_restored_in_four_steps(golden, golden_net, backend, sampler):
    restored = restore_tensor(
        golden_net, golden["degraded"], steps=4, sampler=sampler.upper(), noise=golden["noise_four_steps"]
    )
    torch.testing.assert_close(restored, golden[f"restored_four_steps_{sampler}"], **TOLERANCE)


def test_restored_in_four_steps_em(golden, golden_net, backend):
    with pytest.warns(RuntimeWarning, match="stop short"):
        restored = restore_tensor(
            golden_net, golden["degraded"], steps=4, sampler="EM", noise=golden["noise_four_steps"]
        )
    torch.testing.assert_close(restored, golden["restored_four_steps_em"], **TOLERANCE)


def test_restored_in_one_step(golden, golden_net, backend):
    restored = restore_tensor(golden_net, golden["degraded"], noise=golden["noise_one_step"][None])
    torch.testing.assert_close(restored, golden["restored_one_step"], **TOLERANCE)


def test_pixel_loss(golden, output):
    """The main term of the published loss, from what forward returns: the Charbonnier distance to the target."""
    target = target_of("SFLOW", golden["x_t"], output.analysis.enhanced, golden["clean"])
    loss = ((target - output.prediction) ** 2 + 1e-3**2).sqrt().mean()
    torch.testing.assert_close(loss, golden["loss_main"][0], **TOLERANCE)
