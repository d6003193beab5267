"""The Lightning module: one transport training step, its optimiser, and validation by restoring."""

import copy
import math
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from f2d.metrics import psnr
from f2d.nets import F2DNet
from f2d.nets.f2dnet import F2DOutput
from f2d.restore import restore_tensor
from f2d.training import losses
from f2d.training.data import Batch
from f2d.training.recipe import Recipe
from f2d.transport import mu_of, target_of


class TransportModule(lightning.LightningModule):
    """Fits ``v(x_t, y, t)`` to the transport target, with x_t = mu + (y - mu) exp(M_t + S_t eps) drawn per sample.

    The exponential moving average of the weights (`ema`) is what validation restores with and what a run ships.
    """

    def __init__(self, recipe: Recipe, net: F2DNet, validation: Batch):
        super().__init__()
        self.recipe = recipe
        self.net = net
        self.ema = AveragedModel(net, avg_fn=_ema(recipe.ema_decay))
        self.ema.requires_grad_(False)
        self.validation = validation
        self.schedule = net.config.schedule
        self.history: list[dict[str, float]] = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        # the noise on the gates comes from the global generator: keyed by the samples, a resumed run draws the same
        torch.manual_seed(int(batch.seeds[0]))
        y, mu = (batch.degraded * 2 - 1).contiguous(memory_format=torch.channels_last), batch.clean * 2 - 1
        t = self._draw_steps(batch.seeds)
        analysis = self.net.analyse(y)
        y = analysis.enhanced.float()  # the transport starts from the enhanced image
        x_t = self.schedule.sample(y, mu, t, seed=batch.seeds)
        output = self.net.velocity(x_t, analysis, t)
        with torch.autocast(self.device.type, enabled=False):  # binary cross-entropy refuses autocast on a GPU
            terms = self._terms(output, x_t, y, mu, t, batch)
        total = sum(getattr(self.recipe.losses, name) * value for name, value in terms.items())
        self.log_dict({name: value.detach() for name, value in terms.items()}, prog_bar=False)
        self.log("loss", total.detach(), prog_bar=True)
        return total

    def _draw_steps(self, seeds: Tensor) -> Tensor:
        """t per sample, a function of its seed alone: 0 with probability one_call_fraction, else uniform over 0..T."""
        draws = torch.stack([torch.rand(2, generator=torch.Generator().manual_seed(int(s))) for s in seeds.tolist()])
        uniform = (draws[:, 1] * (self.net.config.num_steps + 1)).long()
        return torch.where(draws[:, 0] < self.recipe.one_call_fraction, 0, uniform).to(seeds.device)

    def _terms(
        self, output: F2DOutput, x_t: Tensor, y: Tensor, mu: Tensor, t: Tensor, batch: Batch
    ) -> dict[str, Tensor]:
        kind, labels = self.net.config.target, batch.labels
        prediction = output.prediction.float()
        mu_hat = mu_of(kind, prediction, x_t, y)
        terms = {
            "pixel": losses.charbonnier(prediction, target_of(kind, x_t, y, mu)),
            "reconstruction": losses.charbonnier(mu_hat, mu),
            "frequency": losses.frequency(mu_hat, mu),
            "classification": losses.classification(output.analysis.logits, labels),
            "presence": losses.presence(output.analysis.weights, labels),
            "balance": losses.balance(output.gates, labels),
            "gate_prior": losses.gate_prior(output.gates, losses.time_prior(labels, t, self.net.config.num_steps)),
        }
        if self.net.config.spatial_maps:  # without, the maps are ones: a constant that teaches nothing
            maps = torch.nn.functional.interpolate(output.analysis.maps.float(), batch.maps.shape[-2:])
            terms["maps"] = losses.map_supervision(maps, losses.map_target(batch.maps, labels))
        return terms

    def on_train_batch_end(self, *_: Any) -> None:
        self.ema.update_parameters(self.net)

    def validation_step(self, batch: Any, index: int) -> None:
        data = self.validation
        restored = restore_tensor(self.ema.module, data.degraded.to(self.device) * 2 - 1, seed=0)
        before = psnr(data.degraded, data.clean)
        gain = psnr((restored.float().cpu() + 1) / 2, data.clean) - before
        per_factor = {
            f"gain_{name}": gain[(data.labels[:, k] > 0) & (data.labels.sum(1) == 1)].mean()
            for k, name in enumerate(self.net.config.factors)
        }
        row = {"gain": gain.mean(), **per_factor}
        self.log_dict(row, prog_bar=True)
        self.history.append({"step": self.global_step, **{k: round(float(v), 3) for k, v in row.items()}})

    def configure_optimizers(self) -> dict[str, Any]:
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )
        floor = recipe.final_learning_rate / recipe.learning_rate

        def factor(step: int) -> float:
            if step < recipe.warmup_steps:
                return (step + 1) / recipe.warmup_steps
            progress = min(1.0, (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]

    def weights_to_ship(self) -> F2DNet:
        """A copy of the averaged network in float32, ready to save."""
        return copy.deepcopy(self.ema.module).float().to(memory_format=torch.contiguous_format).eval()


def _ema(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """averaged <- d · averaged + (1 - d) · current with d = min(decay, (1 + n) / (10 + n)): no memory of the start."""

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        return torch.lerp(averaged, current, 1 - min(decay, (1 + float(count)) / (10 + float(count))))

    return average
