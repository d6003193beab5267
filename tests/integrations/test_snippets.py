"""The lines before and after in the adapters' docstrings, run as written, the first against the peers' own defaults.

Before runs in float64 with a peer, or what stands for it; after runs in float32 and in float64 with the adapters.
"""

import functools
import inspect
import math
import re
import textwrap
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import f2d_kernels.integrations as ours
from f2d_kernels.integrations import _tables, bridge, ddim, fod, mean_reverting, mixture, residual, resshift

from . import peers
from .test_times import drawn

SEED = 7  # of every snippet
SHAPE = (2, 3, 8, 9)


def snippets(module):
    """[(before, after)] of a module's docstring."""
    text = inspect.cleandoc(module.__doc__)
    blocks = re.split(r"^    # (before|after).*\n", text, flags=re.M)[1:]
    code = [textwrap.dedent("".join(re.findall(r"^(?:    .*)?\n", block, flags=re.M))) for block in blocks[1::2]]
    assert blocks[::2] == ["before", "after"] * (len(code) // 2)
    return list(zip(code[::2], code[1::2]))


def keyed_noise(t, x):
    """The standard normal noise of a step at t with the seed of the snippets."""
    return drawn(x, [SEED + t * _tables.PER_TIME + b * _tables.PER_SAMPLE for b in range(len(x))])


def image(*shape, seed=1):
    return torch.randn(shape or SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(pair, result, peer, **names):
    """`result` of the code before with the names `peer` beside all, and of the code after with the adapters."""

    def run(code, dtype, extra):
        space = {
            n: v.to(dtype) if isinstance(v, nn.Module) or (torch.is_tensor(v) and v.is_floating_point()) else v
            for n, v in names.items()
        }
        torch.manual_seed(3)
        scope = {"torch": torch, "math": math, "F": F} | space | extra
        # the same start in both types; PyTorch draws others for each
        start = mock.patch.object(torch, "randn_like", lambda x: torch.randn(x.shape, dtype=torch.float64).to(x.dtype))
        with torch.no_grad(), start:
            exec(code, scope)
        return scope[result]

    before, after = pair
    adapters = {name: getattr(ours, name) for name in ours.__all__}
    exact = run(before, torch.float64, peer)
    size = max(1.0, float(exact.abs().max()))
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 5e-5)):
        found = run(after, dtype, {**{n: v for n, v in peer.items() if n not in adapters}, **adapters})
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=tolerance * size)


CONFIGURATIONS = {
    "defaults": ({}, 50),
    "50 does not divide": ({}, 30),
    "trailing": ({"timestep_spacing": "trailing"}, 30),
    "trailing, 7": ({"timestep_spacing": "trailing"}, 7),
    "linspace": ({"timestep_spacing": "linspace"}, 10),
    "stable diffusion": (
        {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "beta_schedule": "scaled_linear"},
        50,
    ),
    "zero terminal SNR": (
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        20,
    ),
    "clean image, wider": ({"prediction_type": "sample", "clip_sample_range": 2.0}, 10),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_ddim(name, monkeypatch):
    diffusers = pytest.importorskip("diffusers")
    options, steps = CONFIGURATIONS[name]
    code = [text.replace("set_timesteps(50)", f"set_timesteps({steps})") for text in snippets(ddim)[0]]
    scheduler = diffusers.DDIMScheduler(**options)
    scheduler.set_timesteps(steps)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    times = []

    def model(x, t):
        times.append(int(t))
        return torch.tanh(0.7 * x + 0.1)

    noise = lambda shape, **_: keyed_noise(times[-1], image())  # noqa: E731
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddim.randn_tensor", noise)
    assert_same(code, "x", {}, scheduler=scheduler, model=model, x=image())


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_the_ddpm_of_diffusers_clips_and_rederives(kind, monkeypatch):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(prediction_type=kind)
    scheduler.set_timesteps(25)
    name = {"epsilon": "epsilon", "sample": "x0"}[kind]
    process = ours.DDIM(
        scheduler.alphas_cumprod, scheduler.timesteps, 1.0, name, clip=1.0, stride=1000 // 25, rederive=True
    )
    x = y = image()
    for t in scheduler.timesteps:
        noise = keyed_noise(int(t), x)
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, noise=noise, **__: noise)
        x = scheduler.step(torch.tanh(x), t, x).prev_sample
        y = process.step(y, torch.tanh(y), t, seed=SEED)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDIMParallelScheduler"])
@pytest.mark.parametrize("rederive", [False, True])
def test_ddim_with_the_clipped_model_output(rederive, kind):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, kind)()
    scheduler.set_timesteps(10)
    process, x, p = ours.DDIM.of(scheduler, use_clipped_model_output=rederive), image(), image(*SHAPE, seed=2)
    wanted = scheduler.step(p, 500, x, use_clipped_model_output=rederive).prev_sample
    torch.testing.assert_close(process.step(x, p, 500), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(process.step(x, p, 500), ours.DDIM.of(scheduler, 0.0, not rederive).step(x, p, 500))


def test_schedulers_that_are_not_understood():
    diffusers = pytest.importorskip("diffusers")
    for name in ("EulerDiscrete", "DDPM", "LCM", "TCD", "PNDM", "RePaint", "CogVideoXDDIM"):
        scheduler = getattr(diffusers, f"{name}Scheduler")()
        scheduler.set_timesteps(5)
        with pytest.raises(TypeError, match=f"must be a DDIMScheduler, got {name}Scheduler"):
            ours.DDIM.of(scheduler)
    with pytest.raises(ValueError, match=r"call scheduler\.set_timesteps"):
        ours.DDIM.of(diffusers.DDIMScheduler())
    scheduler = diffusers.DDIMScheduler(thresholding=True)
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="thresholding"):
        ours.DDIM.of(scheduler)
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    scheduler.set_timesteps(5)
    with pytest.raises(ValueError, match="alpha_bar is 0 at t = 999"):
        ours.DDIM.of(scheduler)


def flow(x, t, *others):
    return 1.3 * torch.sin(2 * x + 0.01 * torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("sampler", ["EM", "MC"])
@pytest.mark.parametrize("target", ["SFLOW", "FLOW", "FINAL_X"])
@pytest.mark.parametrize("steps", [100, 29, 7])
def test_fod(sampler, target, steps):
    before, after = snippets(fod)[0]
    before = before.replace("model_kwargs", f"sample_type='{sampler}', model_kwargs") if sampler != "EM" else before
    after = after.replace('"EM"', f'"{sampler}"').replace('"SFLOW"', f'"{target}"')
    for deterministic in (False, True):
        diffusion = peers.FoDiffusion(keyed_noise, target=target, deterministic=deterministic)
        assert_same((before, after), "x", {}, diffusion=diffusion, model=flow, x_start=image(), n=steps)


def test_fod_steps_fall_where_numpy_rounds():
    """astype(int) cuts what float64 makes of i T / n: 57 instead of 58 where that is 57.99999999999999."""
    differing = 0
    for total in (100, 1000):
        rates = torch.ones(total)
        for steps in range(1, 101):
            times = torch.from_numpy(peers.np.linspace(0, total, steps + 1).astype(int)).tolist()
            assert list(ours.FoD(rates, rates, 0.1, steps).times) == times[:-1]
            differing += times != [i * total // steps for i in range(steps + 1)]
    assert differing > 0


@pytest.mark.parametrize(
    ("module", "peer"), [(mean_reverting, peers.IRSDE), (bridge, peers.GOUB)], ids=["IRSDE", "GOUB"]
)
def test_mean_reverting_processes(module, peer):
    def model(x, mu, t):
        return torch.tanh(x - mu) + 0.01 * t

    names = {peer.__name__: functools.partial(peer, keyed_noise)}
    for pair in (snippets(module)[0], [text.replace(", eps=0.005", "") for text in snippets(module)[0]]):
        assert_same(pair, "x", names, mu=image(), model=model)


@pytest.mark.parametrize("options", [{}, {"steps": 4, "min_noise_level": 0.2}], ids=["15 steps", "journal"])
@pytest.mark.parametrize("clip", [True, False])
def test_resshift(options, clip):
    before, after = snippets(resshift)[0]
    if not clip:
        before, after = before.replace("clip_denoised=True", "clip_denoised=False"), after.replace("1.0", "None")
    diffusion = peers.Shifting(keyed_noise, **options)
    assert_same((before, after), "x", {}, diffusion=diffusion, model=flow, y=image())
    published = ours.ResShift.exponential(**options)
    torch.testing.assert_close(published._state_64, ours.ResShift(diffusion.etas)._state_64, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 10, 300])
def test_rddm_and_diffuir(steps):
    def rddm(x, time):
        return torch.sin(3 * x[:, :3]), torch.cos(x[:, 3:] + 0.001 * time.reshape(-1, 1, 1, 1))

    def diffuir(x, times):
        return [torch.sin(3 * x[:, :3] - x[:, 3:]) + 0.001 * times[0].to(x.dtype).reshape(-1, 1, 1, 1)]

    pairs = snippets(residual)
    assert len(pairs) == 2
    for pair, peer, model in zip(pairs, (peers.RDDM, peers.DiffUIR), (rddm, diffuir)):
        diffusion = peer(model, sampling_timesteps=steps)
        assert_same(pair, "out", {}, diffusion=diffusion, x_input=image())


def test_mixtures():
    torch.manual_seed(0)

    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(5, 5, 1)

        def forward(self, x, shared):
            return self.conv(x) * shared

    gates = torch.zeros(2, 4).scatter_(1, torch.tensor([[0, 2], [2, 0]]), torch.rand(2, 2)).double()
    pairs = snippets(mixture)
    features = image(2, 5, 8, 9)
    moe, prompts, gated = pairs
    top = torch.tensor([[0, 2], [0, 2]])
    selected = nn.ModuleList([Expert(), Expert()])
    assert_same(moe, "out", {}, x=features, shared=image(2, 5, 8, 9), selected=selected, gates=gates, top_k_indices=top)
    layers = {"linear": nn.Linear(5, 3), "conv3x3": nn.Conv2d(6, 6, 3, padding=1, bias=False)}
    assert_same(prompts, "prompt", {}, x=features, prompt_param=image(1, 3, 6, 4, 4), **layers)
    block = {"fc": nn.Linear(7, 5), "block": nn.Conv2d(5, 5, 3, padding=1), "text": image(2, 7)}
    assert_same(gated, "out", {}, x=features, gamma=image(1, 5, 1, 1), beta=image(1, 5, 1, 1, seed=2), **block)
