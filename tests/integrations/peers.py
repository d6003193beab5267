"""Stand-ins for the classes that other repositories publish: their names and defaults, written from the formulas.

Each draws the noise of a step from `noise(t, x)`, so that an adapter with the seed that belongs to it draws the same.
"""

import math
from itertools import pairwise

import numpy as np
import torch


def at(values, t):
    """values[t] of a tensor of times, for images."""
    return torch.as_tensor(values)[t].reshape(-1, 1, 1, 1)


class FoDiffusion:
    """Algolzw/FoD: cosine theta, linear sigma² of sum 1, Euler-Maruyama, mu clipped, numpy's spacing."""

    def __init__(self, noise, steps=100, target="SFLOW", deterministic=False):
        place = np.arange(steps + 1) / steps
        level = np.cos((place + 0.008) / 1.008 * np.pi / 2) ** 2
        sigma2 = np.zeros(steps) if deterministic else np.linspace(0.1, 20, steps) / np.linspace(0.1, 20, steps).sum()
        self.thetas = np.append(0.0, np.clip(1 - level[1:] / level[:-1], 0, 0.999))
        self.sigmas = np.append(0.0, sigma2)
        self.dt = -math.log(0.001) / float((self.thetas + self.sigmas / 2).sum())
        self.noise, self.num_timesteps, self.target = noise, steps, target

    def forward_loop(self, model, x_start, num_steps=-1, sample_type="EM", clip_denoised=True, model_kwargs=None):
        count = self.num_timesteps if num_steps <= 0 else num_steps
        times = np.linspace(0, self.num_timesteps, count + 1).astype(int)
        x = x_start
        for t, after in pairwise(times):
            predicted = model(x, torch.tensor([t] * len(x)), x_start, **model_kwargs)
            mu = {"SFLOW": x + predicted, "FLOW": x_start + predicted, "FINAL_X": predicted}[self.target]
            mu = mu.clamp(-1, 1) if clip_denoised else mu
            eps = self.noise(int(t), x)
            if sample_type == "EM":
                drift = self.thetas[after] * (mu - x) * self.dt
                x = x + drift + math.sqrt(self.sigmas[after] * self.dt) * (x - mu) * eps
            else:
                passed = slice(t + 1, after + 1)
                mean = -(self.thetas[passed] + self.sigmas[passed] / 2).sum() * self.dt
                x = mu + (x - mu) * torch.exp(mean + math.sqrt(self.sigmas[passed].sum() * self.dt) * eps)
        return x


class MeanReverting:
    """What IR-SDE and GOUB share: rates at times 0..T, lambda in grey levels, e^{-Θ_T} = eps."""

    def __init__(self, noise, spread, steps, schedule, eps):
        assert schedule == "cosine"
        place = torch.arange(steps + 3, dtype=torch.float64) / (steps + 2)
        level = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
        self.thetas = 1 - (level / level[0])[1:-1]
        self.total = self.thetas.cumsum(0) - self.thetas[0]
        self.dt = -math.log(eps) / float(self.total[-1])
        self.spread = spread / 255 if spread >= 1 else spread
        self.noise, self.T = noise, steps

    def set_mu(self, mu):
        self.mu = mu

    def sigma2(self, t):
        return 2 * self.spread**2 * self.thetas[t]

    def bar(self, span):
        return self.spread * math.sqrt(1 - math.exp(-2 * float(span) * self.dt))

    def diffused(self, x, t):
        return math.sqrt(float(self.sigma2(t)) * self.dt) * self.noise(t, x)


class IRSDE(MeanReverting):
    """Algolzw/image-restoration-sde; eps is 0.01 unless given."""

    def __init__(self, noise, max_sigma, T=100, schedule="cosine", eps=0.01):
        super().__init__(noise, max_sigma, T, schedule, eps)
        self.max_sigma = self.spread

    def get_score_from_noise(self, predicted, t):
        return -predicted / self.bar(self.total[t])

    def reverse_sde_step(self, x, score, t):
        drift = self.thetas[t] * (self.mu - x) - self.sigma2(t) * score
        return x - drift * self.dt - self.diffused(x, t)


class GOUB(MeanReverting):
    """Hammour-steak/GOUB; eps is 0.01 unless given, and the end of time is 100."""

    def __init__(self, noise, lambda_square, T=100, schedule="cosine", eps=0.01):
        super().__init__(noise, lambda_square, T, schedule, eps)

    def f_sigma(self, t):
        return self.bar(self.total[t]) * self.bar(self.total[-1] - self.total[t]) / self.bar(self.total[-1])

    def reverse_mean_ode_step(self, x, score, t):
        drift = self.thetas[t] * (self.mu - x) - self.sigma2(t) * score
        if t != 100:
            left = self.total[-1] - self.total[t]
            decay = torch.exp(-2 * left * self.dt)
            drift = drift - self.sigma2(t) * decay / self.bar(left) ** 2 * (x - self.mu)
        return x - drift * self.dt


class Shifting:
    """zsyOAOA/ResShift: GaussianDiffusion with the schedule of its configurations, which predict x_0."""

    def __init__(self, noise, steps=15, min_noise_level=0.04, kappa=2.0, etas_end=0.99, power=0.3):
        first = min(min_noise_level / kappa, min_noise_level)
        growth = math.exp(math.log(etas_end / first) / (steps - 1))
        roots = first * growth ** (np.linspace(0, 1, steps) ** power * (steps - 1))
        self.etas, self.kappa, self.num_timesteps, self.noise = roots**2, kappa, steps, noise

    def _scale_input(self, x, t):
        return x / torch.sqrt(at(self.etas, t) * self.kappa**2 + 1).to(x.dtype)

    def prior_sample(self, y):
        return y + self.kappa * math.sqrt(self.etas[-1]) * self.noise(self.num_timesteps, y)

    def p_sample(self, model, x, y, t, clip_denoised=True):
        clean = model(self._scale_input(x, t), t)
        clean = clean.clamp(-1, 1) if clip_denoised else clean
        now, last = at(self.etas, t), at(np.append(0.0, self.etas), t)
        mean = last / now * x + (now - last) / now * clean
        std = self.kappa * torch.sqrt(last / now * (now - last))
        return {"sample": mean + (t != 0).reshape(-1, 1, 1, 1) * std * self.noise(int(t[0]), x)}


class RDDM:
    """nachifur/RDDM, restoration: alpha falls, beta² rises to sum_scale, residual and noise predicted, eta 0."""

    def __init__(self, model, timesteps=1000, sampling_timesteps=10, sum_scale=0.01):
        rising = torch.arange(1, timesteps + 1, dtype=torch.float64)
        self.alphas_cumsum = (rising.flip(0) / rising.sum()).cumsum(0).clip(0, 1)
        self.betas_cumsum = (rising / rising.sum() * sum_scale).cumsum(0).clip(0, 1).sqrt()
        self.model, self.sum_scale = model, sum_scale
        self.num_timesteps, self.sampling_timesteps = timesteps, sampling_timesteps

    def start(self, x_input):
        return x_input + math.sqrt(self.sum_scale) * torch.randn_like(x_input)

    def predicted(self, x, x_input, time):
        residual, noise = self.model(torch.cat([x, x_input], 1), time)
        residual = residual.clamp(-1, 1)
        clean = x - at(self.alphas_cumsum, time) * residual - at(self.betas_cumsum, time) * noise
        return residual, noise, clean.clamp(-1, 1)

    def moved(self, x, x_input, residual, noise, t, s):
        a, b = self.alphas_cumsum, self.betas_cumsum
        return x - (a[t] - a[s]) * residual - (b[t] - b[s]) * noise

    def ddim_sample(self, x_inputs, shape):
        x_input = x_inputs[0]
        times = torch.linspace(-1, self.num_timesteps - 1, self.sampling_timesteps + 1).int().flip(0).tolist()
        x = noisy = self.start(x_input)
        for t, s in pairwise(times):
            residual, noise, clean = self.predicted(x, x_input, torch.full((len(x),), t))
            x = clean if s < 0 else self.moved(x, x_input, residual, noise, t, s)
        return [(image + 1) / 2 for image in (noisy, x)]


class DiffUIR(RDDM):
    """iSEE-Laboratory/DiffUIR: DDPM's betas, a shared term delta, the residual alone predicted, noise left in x."""

    def __init__(self, model, timesteps=1000, sampling_timesteps=3, sum_scale=0.01, delta_end=1.8e-3):
        super().__init__(model, timesteps, sampling_timesteps, sum_scale)
        kept = (1 - torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)).cumprod(0)
        self.alphas_cumsum, self.betas_cumsum = 1 - kept.sqrt(), (1 - kept).sqrt()
        self.delta_cumsum = torch.linspace(1e-6, delta_end, timesteps, dtype=torch.float64).cumsum(0).clip(0, 1)

    def start(self, x_input):
        return super().start((1 - self.delta_cumsum[-1]) * x_input) if self.sum_scale else x_input

    def predicted(self, x, x_input, time):
        scaled = [values[time] * self.num_timesteps for values in (self.alphas_cumsum, self.betas_cumsum)]
        residual = self.model(torch.cat([x, x_input], 1), scaled)[0].clamp(-1, 1)
        return residual, None, (x_input - residual).clamp(-1, 1)

    def moved(self, x, x_input, residual, noise, t, s):
        a, d = self.alphas_cumsum, self.delta_cumsum
        return x - (a[t] - a[s]) * residual + (d[t] - d[s]) * x_input
