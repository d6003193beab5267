"""The scheduler of diffusers against the formula in float64, our own sampler, and the law of the process."""

import itertools
import math

import pytest
import torch

pytest.importorskip("diffusers")

from f2d.integrations import LogNormalScheduler
from f2d.nets import F2DNet
from f2d.transport import THETA, LogNormalSchedule, transport
from tests.nets.small import TINY, small_config


def images(batch: int = 2, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """(degraded, clean), float32 in [-1, 1]."""
    generator = torch.Generator().manual_seed(1)
    x, mu = (torch.rand(batch, 3, size, size, generator=generator) * 1.6 - 0.8 for _ in range(2))
    return x, mu


def predict_mu(x: torch.Tensor, t: int) -> torch.Tensor:
    """Some network: of the state and the time."""
    return (0.8 * x + 0.002 * t).sin()


def output_of(kind: str, mu: torch.Tensor, x: torch.Tensor, x_0: torch.Tensor) -> torch.Tensor:
    return {"SFLOW": mu - x, "FLOW": mu - x_0, "FINAL_X": mu}[kind]


def looped(scheduler: LogNormalScheduler, x_0: torch.Tensor, **options) -> torch.Tensor:
    """The loop that diffusers' pipelines have."""
    x = x_0 * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t)
        output = output_of(scheduler.config.prediction_type, predict_mu(seen, int(t)), seen, x_0)
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("kind", ["SFLOW", "FLOW", "FINAL_X"])
@pytest.mark.parametrize(("sampler", "steps"), [("MC", 1), ("MC", 4), ("NMC", 4), ("EM", 100), ("mean", 1)])
def test_a_loop_of_diffusers_equals_our_own_sampler(sampler, steps, kind):
    x_0, _ = images()
    scheduler = LogNormalScheduler(sampler=sampler, prediction_type=kind)
    scheduler.set_timesteps(steps)
    ours = transport(predict_mu, x_0, LogNormalSchedule.named(), steps=steps, sampler=sampler, seed=7)
    tolerance = {"rtol": 0, "atol": 2e-6 * steps**0.5} if kind != "FINAL_X" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(looped(scheduler, x_0, seed=7), ours, **tolerance)


@pytest.mark.parametrize("theta", sorted(set(THETA) - {"straight"}))
def test_one_step_is_the_formula_in_float64(theta):
    x, mu = images()
    eps = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    scheduler = LogNormalScheduler(theta=theta, sigma2="constant", prediction_type="FINAL_X")
    scheduler.set_timesteps(timesteps=[10, 35])
    # the rates by hand: dt makes exp(log_mean_T) 0.001, sigma2 sums to 1
    i = torch.arange(1, 101, dtype=torch.float64)
    level = ((i / 100 + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    before = (((i - 1) / 100 + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    rates = {
        "constant": torch.ones_like(i),
        "linear": torch.linspace(1e-3, 0.2, 100, dtype=torch.float64),
        "cosine": (1 - level / before).clamp(max=0.999),
        "jsd": (101 - i) ** -1.5,
    }[theta]
    dt = math.log(1000) / float(rates.sum() + 0.5)
    log_mean = -dt * float(rates[10:35].sum() + 0.5 * 25 / 100)
    variance = dt * 25 / 100
    expected = mu + (x - mu).double() * (log_mean + math.sqrt(variance + 1e-8) * eps).exp()
    step = scheduler.step(mu, 10, x, noise=eps.float())
    torch.testing.assert_close(step.prev_sample.double(), expected.clamp(-2, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(step.pred_original_sample, mu, rtol=0, atol=0)


def test_the_state_of_training_is_that_of_the_process_in_law():
    """E[r] = exp(-∫ theta), Var[r] = E[r]² (exp(S²) - 1), of r = (x_t - mu) / (x_0 - mu)."""
    scheduler, t = LogNormalScheduler(), 70
    x_0, mu = torch.full((2, 1, 1, 200_000), 0.5), torch.full((2, 1, 1, 200_000), -0.25)
    x_t = scheduler.add_noise(mu, x_0, torch.tensor([0, t]), generator=torch.Generator().manual_seed(3))
    assert torch.equal(x_t[0], x_0[0])  # time 0 is the degraded image
    ratio = ((x_t[1] - mu[1]) / 0.75).double()
    log_mean, log_std = -1.4938, 0.6356  # printed in the paper's table of the process
    mean = math.exp(log_mean + log_std**2 / 2)
    variance = mean**2 * (math.exp(log_std**2) - 1)
    assert abs(float(ratio.mean()) - mean) < 5 * math.sqrt(variance / ratio.numel()) + 1e-4 * mean
    assert abs(float(ratio.var()) / variance - 1) < 0.03
    eps = torch.randn(x_0.shape)
    given = scheduler.add_noise(mu, x_0, t, epsilon=eps)
    torch.testing.assert_close(given, mu + 0.75 * (log_mean + log_std * eps).exp(), rtol=2e-4, atol=1e-4)


def test_training_states_walk_to_the_clean_image():
    """With the true mu, from wherever add_noise has put the state: what is left of the residual is about 0.001."""
    x_0, mu = images()
    scheduler = LogNormalScheduler(prediction_type="SFLOW")
    scheduler.set_timesteps(timesteps=[50, 80])
    x = scheduler.add_noise(mu, x_0, 50, seed=1)
    for t in scheduler.timesteps:
        x = scheduler.step(mu - x, t, x, seed=2).prev_sample
    assert float((x - mu).abs().max()) < 0.05 and not torch.equal(x, mu)


def test_times():
    scheduler = LogNormalScheduler()
    assert len(scheduler) == 100 and scheduler.order == 1 and scheduler.timesteps.tolist() == [*range(100)]
    for steps in (1, 3, 100):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == [i * 100 // steps for i in range(steps)]
        assert scheduler.timesteps.dtype == torch.int64 and scheduler.num_inference_steps == steps
    scheduler.set_timesteps(timesteps=torch.tensor([0, 7, 99]))
    assert scheduler.timesteps.tolist() == [0, 7, 99]
    with pytest.warns(RuntimeWarning, match="5 of 100 steps stop short"):
        LogNormalScheduler(sampler="EM").set_timesteps(5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give exactly one of num_inference_steps and timesteps"),
        ({"num_inference_steps": 2, "timesteps": [0]}, "give exactly one of num_inference_steps and timesteps"),
        ({"num_inference_steps": 0}, "must be 1 to 100"),
        ({"num_inference_steps": 101}, "must be 1 to 100"),
        ({"timesteps": []}, "must ascend"),
        ({"timesteps": [50, 20]}, "must ascend"),
        ({"timesteps": [-1, 20]}, "must ascend"),
        ({"timesteps": [100]}, "0 <= t < 100"),
    ],
)
def test_wrong_times(options, words):
    with pytest.raises(ValueError, match=words):
        LogNormalScheduler().set_timesteps(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "DDIM"}, r"sampler must be one of MC, NMC, EM, mean.*got 'DDIM'"),
        ({"prediction_type": "epsilon"}, r"prediction_type must be one of SFLOW, FLOW, FINAL_X.*got 'epsilon'"),
        ({"theta": "sine"}, "got 'sine'"),
        ({"dt": 0.1}, "dt must be omitted"),
        ({"theta": [1.0, 1.0], "dt": 0.1}, "must be names, or numbers"),
        ({"theta": [1.0, 1.0], "sigma2": [0.0, 0.0], "dt": 0.1}, "2 rates for num_train_timesteps=100"),
    ],
)
def test_wrong_configurations(options, words):
    with pytest.raises(ValueError, match=words):
        LogNormalScheduler(**options)


def test_rates_as_tensors_are_saved_as_numbers(tmp_path):
    theta, sigma2 = torch.linspace(0.01, 0.02, 5), torch.full((5,), 0.01)
    scheduler = LogNormalScheduler(num_train_timesteps=5, theta=theta, sigma2=sigma2, dt=1.0)
    scheduler.save_pretrained(tmp_path)
    again = LogNormalScheduler.from_pretrained(tmp_path)
    assert torch.equal(again.transport.schedule.theta, scheduler.transport.schedule.theta)
    assert again.config.sigma2 == sigma2.tolist()


def test_times_are_whole_numbers():
    scheduler = LogNormalScheduler()
    with pytest.raises(TypeError, match="integer"):
        scheduler.set_timesteps(timesteps=[0.9, 10.2])
    scheduler.set_timesteps(timesteps=torch.tensor([0, 50]))
    with pytest.raises(TypeError, match="integer"):
        scheduler.step(torch.zeros(1, 3, 2, 2), 50.5, torch.zeros(1, 3, 2, 2))


def test_wrong_steps():
    x, mu = images()
    scheduler = LogNormalScheduler(sampler="NMC")
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"30 is not among the timesteps \[0, 25, 50, 75\]"):
        scheduler.step(mu, 30, x)
    with pytest.raises(ValueError, match=r"100 is not among"):
        scheduler.step(mu, 100, x)
    with pytest.raises(ValueError, match="one source of noise"):
        scheduler.step(mu, 0, x, seed=1, generator=torch.Generator())
    with pytest.raises(ValueError, match="one for each of 2 images, got 3"):
        scheduler.step(mu, 0, x, generator=[torch.Generator()] * 3)
    scheduler.set_timesteps(timesteps=[25, 50])
    with pytest.raises(ValueError, match="starts at 25, not at 0, so x_0 must be given"):
        scheduler.step(mu, 25, x)
    assert scheduler.step(mu, 25, x, original_sample=mu, seed=1).prev_sample.shape == x.shape


def test_timesteps_on_another_device_are_counted_and_not_looked_at():
    """The meta device stands for a GPU: looking at a value there is an error."""
    x_0, _ = images()
    scheduler = LogNormalScheduler(prediction_type="FINAL_X")
    scheduler.set_timesteps(3)
    expected = looped(scheduler, x_0, seed=7)
    scheduler.set_timesteps(3, device="meta")
    scheduler.set_begin_index(0)
    x = x_0
    for i, t in enumerate(scheduler.timesteps):
        assert scheduler.step_index == (i or None)
        x = scheduler.step(predict_mu(x, [0, 33, 66][i]), t, x, seed=7).prev_sample
    assert torch.equal(x, expected)
    with pytest.raises(ValueError, match="no step follows the last one"):
        scheduler.step(x, scheduler.timesteps[0], x)


def test_training_times_of_every_kind():
    x_0, mu = images()
    scheduler = LogNormalScheduler()
    wanted = scheduler.add_noise(mu, x_0, torch.tensor([20, 20]), seed=1)
    for one in (20, torch.tensor(20), torch.tensor([20]), torch.tensor([20], dtype=torch.int32)):
        torch.testing.assert_close(scheduler.add_noise(mu, x_0, one, seed=1), wanted, rtol=1e-5, atol=1e-6)
    for wrong in (-1, 101, torch.tensor(-1), torch.tensor([20, 101]), torch.tensor([-1])):
        with pytest.raises(ValueError, match=r"timesteps must lie in 0 to 100, got -?1\d*"):
            scheduler.add_noise(mu, x_0, wrong, seed=1)
    for wrong in (20.0, True, torch.tensor([20.0, 70.0]), torch.tensor([True, False])):
        with pytest.raises(TypeError, match="timesteps must be"):
            scheduler.add_noise(mu, x_0, wrong, seed=1)
    for wrong in (torch.tensor([20, 30, 40]), torch.tensor([[20, 30]])):
        with pytest.raises(ValueError, match="must be one, or one per image"):
            scheduler.add_noise(mu, x_0, wrong, seed=1)


def test_training_times_on_a_device_are_not_looked_at():
    """The meta device stands for a GPU: looking at a value there is an error."""
    scheduler = LogNormalScheduler()
    x = torch.zeros(2, 3, 4, 4, device="meta")
    for t in (torch.tensor([3], device="meta"), torch.tensor([3, 4], device="meta"), torch.tensor([3, 4])):
        assert scheduler.add_noise(x, x, t, seed=1).shape == x.shape


def test_a_step_takes_a_batch_from_one_time():
    x, mu = images()
    scheduler = LogNormalScheduler(prediction_type="FINAL_X")
    scheduler.set_timesteps(4)
    wanted = scheduler.step(mu, 25, x, seed=1, original_sample=x).prev_sample
    for same in (torch.tensor(25), torch.tensor([25]), torch.tensor([25, 25])):
        assert torch.equal(scheduler.step(mu, same, x, seed=1, original_sample=x).prev_sample, wanted)
    with pytest.raises(ValueError, match=r"timestep must be the same for all images, got \[25, 50\]"):
        scheduler.step(mu, torch.tensor([25, 50]), x)
    with pytest.raises(TypeError, match=r"integer, got 25\.0"):
        scheduler.step(mu, torch.tensor(25.0), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_inside(dtype):
    x, mu = (image.to(dtype) for image in images())
    scheduler = LogNormalScheduler()
    scheduler.set_timesteps(4)
    half = scheduler.step(mu - x, 0, x, seed=3)
    full = scheduler.step((mu - x).float(), 0, x.float(), seed=3)
    for name in ("prev_sample", "pred_original_sample"):
        assert half[name].dtype == dtype and torch.equal(half[name], full[name].to(dtype))


def test_a_list_of_generators_gives_an_image_its_noise_whoever_is_beside_it():
    x, mu = images(batch=3)
    scheduler = LogNormalScheduler(prediction_type="FINAL_X")
    scheduler.set_timesteps(4)
    together = scheduler.step(mu, 0, x, generator=[torch.Generator().manual_seed(s) for s in (5, 6, 7)]).prev_sample
    for i, s in enumerate((5, 6, 7)):
        one = slice(i, i + 1)
        alone = scheduler.step(mu[one], 0, x[one], [torch.Generator().manual_seed(s)]).prev_sample
        assert torch.equal(alone, together[one])
    again = scheduler.step(mu, 0, x, torch.Generator().manual_seed(5), return_dict=False)[0]
    same = scheduler.step(mu, 0, x, torch.Generator().manual_seed(5)).prev_sample
    assert torch.equal(again, same) and not torch.equal(again, together)


def test_a_configuration_travels(tmp_path):
    scheduler = LogNormalScheduler(
        num_train_timesteps=50, theta="constant", sigma2="none", sampler="NMC", prediction_type="FLOW"
    )
    scheduler.save_pretrained(tmp_path)
    for other in (LogNormalScheduler.from_pretrained(tmp_path), LogNormalScheduler.from_config(scheduler.config)):
        assert {**other.config, "_use_default_values": None} == {**scheduler.config, "_use_default_values": None}
        assert torch.equal(other.transport.schedule.log_mean, scheduler.transport.schedule.log_mean)
    changed = LogNormalScheduler.from_config(scheduler.config, sampler="MC")
    assert (changed.config.sampler, changed.config.theta) == ("MC", "constant")


@pytest.mark.parametrize("learned", [False, True])
def test_the_scheduler_of_a_network_has_its_rates(tmp_path, learned):
    net = F2DNet(small_config(target="FLOW", theta="linear", num_steps=20, learned_schedule=learned))
    if learned:
        with torch.no_grad():
            net.learned_schedule.seen.fill_(1)
            net.learned_schedule.error.copy_(torch.linspace(1, 0, 21, dtype=torch.float64) ** 3)
        assert not torch.equal(net.schedule.log_mean, net.config.schedule.log_mean)
    LogNormalScheduler.of(net).save_pretrained(tmp_path)
    scheduler = LogNormalScheduler.from_pretrained(tmp_path)
    assert scheduler.config.prediction_type == "FLOW" and len(scheduler) == 20
    for s, t in itertools.pairwise((0, 3, 11, 20)):
        assert scheduler.transport.schedule.transition(s, t) == net.schedule.transition(s, t)


def test_it_is_a_scheduler_of_diffusers():
    from diffusers import ConfigMixin, SchedulerMixin

    scheduler = LogNormalScheduler.of(F2DNet(TINY))
    assert isinstance(scheduler, SchedulerMixin) and isinstance(scheduler, ConfigMixin)
    assert scheduler.config_name == "scheduler_config.json" and scheduler.init_noise_sigma == 1
