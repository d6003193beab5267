"""Objectives of a training step: the terms of F²D-Net, and ResFlow's velocity matching."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.data import Batch
from f2d.nets import F2DNet
from f2d.training import losses
from f2d.training.recipe import LossWeights
from f2d_kernels import gaussian_transition

GATE_STREAM = 65535  # stream of the gates' noise; no sampler has as many steps, so no transport shares it


class Loss(NamedTuple):
    """A loss: the total that is minimised, and its unweighted terms by name."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective(ABC):
    """A training objective: weighted terms, computed at random positions on the path.

    one_call_fraction is the share of the samples at the degraded end of the path, the state that a one-call restoration
    sees; the positions of the others are uniform.
    """

    def __init__(self, weights: LossWeights, one_call_fraction: float):
        self.weights, self.one_call_fraction = weights, one_call_fraction
        self.observed: list[tuple[Tensor, Tensor]] = []  # of a learned schedule: times and errors of mu_hat, per batch

    @abstractmethod
    def terms(self, net: nn.Module, batch: Batch, total: losses.Sum) -> dict[str, Tensor]:
        """Compute the terms of one batch; batch.seeds determine all randomness. `total` sums over the global batch."""

    def __call__(self, net: nn.Module, batch: Batch, total: losses.Sum = losses.batch_sum) -> Loss:
        terms = self.terms(net, batch, total)
        return Loss(sum(getattr(self.weights, name) * value for name, value in terms.items()), terms)

    def mean_over(self, batch: Batch, errors: Tensor, total: losses.Sum) -> Callable[[Tensor], Tensor]:
        """Return the mean over the samples [B] -> [] that the recipe asks for; errors [B] >= 0 say how hard each is."""
        categories, hardness = self.weights.categories, self.weights.hardness
        if not categories and not hardness:
            return torch.mean
        factors = errors.new_tensor([categories.get(name, 1.0) for name in batch.categories])
        return partial(losses.weighted_mean, weights=losses.sample_weights(errors, factors, hardness), total=total)

    def positions(self, seeds: Tensor) -> Tensor:
        """Return each sample's position on its path, [B] in [0, 1), as a function of its seed alone."""
        draws = torch.stack([torch.rand(2, generator=torch.Generator().manual_seed(s)) for s in seeds.tolist()])
        return torch.where(draws[:, 0] < self.one_call_fraction, 0, draws[:, 1]).to(seeds.device)


class FactorizedObjective(Objective):
    """F²D-Net's objective: transport target, clean image, its spectrum, factors, maps, gates and enhancer.

    F2DNet paper and code; the terms are `f2d.training.losses`, their weights the recipe's.
    """

    def terms(self, net: Any, batch: Batch, total: losses.Sum) -> dict[str, Tensor]:
        labels, weights = batch.labels, self.weights
        degraded = (batch.degraded * 2 - 1).contiguous(memory_format=torch.channels_last)
        mu = batch.clean * 2 - 1
        analysis = net.analyse(degraded)
        y, transport = analysis.enhanced.float(), net.transport  # the transport starts from the enhanced image
        draw = transport.draw(y, mu, self.positions(batch.seeds), batch.seeds)
        output = net.velocity(draw.state, analysis, draw.time, gate_noise(batch.seeds, labels.shape[1]))
        pixel = losses.PIXEL[weights.kind]
        with torch.autocast(labels.device.type, enabled=False):  # binary cross-entropy refuses autocast on a GPU
            prediction = output.prediction.float()
            mu_hat = transport.clean(prediction, draw.state, y, draw.time)
            reconstruction = pixel(mu_hat, mu)
            mean = self.mean_over(batch, losses.absolute(mu_hat.detach(), mu), total)
            found = {
                "pixel": mean(pixel(prediction, draw.target)),
                "reconstruction": mean(reconstruction),
                "classification": losses.classification(analysis.logits, labels),
                "presence": losses.presence(analysis.weights, labels),
                "balance": losses.balance(
                    output.gates, labels, present_only=weights.balance_over == "present", total=total
                ),
            }
            if weights.frequency:  # its transform costs a tenth of a small network's forward pass
                found["frequency"] = losses.frequency(mu_hat, mu)
            if weights.gate_prior:
                prior = losses.time_prior(labels, draw.time, net.config.num_steps)
                found["gate_prior"] = losses.gate_prior(output.gates, prior)
            if net.config.spatial_maps:  # without, the maps are ones: a constant that teaches nothing
                maps = _resized(analysis.maps, batch.maps)
                found["maps"] = losses.map_supervision(maps, self._map_target(batch))
                if weights.localisation:
                    found["localisation"] = losses.localisation(maps, batch.maps, total=total)
            if net.enhancer is not None and "low" in net.config.factors:
                dark = labels[:, net.config.factors.index("low")]
                found["enhancement"] = losses.enhancement(analysis.enhanced, degraded, mu, dark, total=total)
                found["enhancer_gate"] = losses.enhancer_gate(analysis.enhancer_gate, dark, total=total)
        if net.learned_schedule is not None and net.training:
            self.observed.append((draw.time, reconstruction.detach()))
        return found

    def _map_target(self, batch: Batch) -> Tensor:
        if self.weights.map_target == "constant":
            return batch.labels[:, :, None, None].expand_as(batch.maps)
        if self.weights.map_target == "mask":
            return batch.maps
        return losses.map_target(batch.maps, batch.labels)


class VelocityMatching(Objective):
    """``E lambda(t) ||v(x_t, y_t, t) - d/dt [x_t; y_t]||²`` (ResFlow, eq. 9-11); the term is called "pixel"."""

    def terms(self, net: Any, batch: Batch, total: losses.Sum) -> dict[str, Tensor]:
        degraded = (batch.degraded * 2 - 1).contiguous(memory_format=torch.channels_last)
        draw = net.transport.draw(degraded, batch.clean * 2 - 1, self.positions(batch.seeds), batch.seeds)
        prediction = net(draw.state, draw.auxiliary, draw.time).float()
        errors = losses.velocity(prediction, draw.target, draw.weight)
        return {"pixel": self.mean_over(batch, errors, total)(errors)}


def objective_of(net: nn.Module, weights: LossWeights, one_call_fraction: float) -> Objective:
    """Return the objective that a network is trained with; raise ValueError for one in which nothing has a weight."""
    kind = FactorizedObjective if isinstance(net, F2DNet) else VelocityMatching
    if kind is VelocityMatching and not weights.pixel:
        raise ValueError("losses.pixel must be above 0 for ResFlow, which has no other term")
    return kind(weights, one_call_fraction)


def gate_noise(seeds: Tensor, factors: int) -> Tensor:
    """Draw [B, K] standard normal noise, that of sample b from its seed alone."""
    nothing = torch.zeros(len(seeds), 1, 1, factors, device=seeds.device)
    return gaussian_transition([nothing], [0.0], 1.0, seed=seeds, stream=GATE_STREAM)[:, 0, 0]


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps.float(), like.shape[-2:]) if maps.shape != like.shape else maps.float()
