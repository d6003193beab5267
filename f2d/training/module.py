"""The Lightning module: one training step of any objective, its optimiser, and validation by restoring."""

import math
from typing import Any, cast

import lightning
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel

from f2d.data import Batch
from f2d.data.categories import CLEAR
from f2d.metrics import luma, psnr, ssim
from f2d.nets.models import Network
from f2d.training.averaging import Average
from f2d.training.muon import Muon
from f2d.training.objectives import objective_of
from f2d.training.recipe import Recipe
from f2d.transport.restore import restore_tensor

COLUMNS = ("psnr_in", "psnr", "ssim", "psnr_y", "ssim_y")
EQUAL = 100.0  # dB for equal images: an infinite value would spoil means, and JSON has none


class DivergenceError(ValueError):
    """Too many steps had a loss or gradients that are not finite."""


class TrainingModule(lightning.LightningModule):
    """Minimises the objective of a network; `ema`, the average of its weights, is validated and saved.

    Everything random in a step follows from the seeds of its samples. Steps whose loss or gradients are not finite are
    skipped and counted (`bad_steps`); DivergenceError when there are more than the recipe allows. history: a row per
    validation, see `on_validation_epoch_end`.
    """

    def __init__(self, recipe: Recipe, net: Network):
        super().__init__()
        self.recipe = recipe
        self.net = net
        self.ema = Average(net, recipe.ema_decay)
        self.objective = objective_of(net, recipe.losses, recipe.one_call_fraction)
        self.history: list[dict[str, Any]] = []
        self.bad_steps = 0
        self.step_loss: list[float] = []  # losses of the current step's accumulated batches
        self.rate = 0.0  # learning rate of the current step
        self._skipped = False
        self._scores: list[tuple[str, list[float]]] = []

    def on_train_start(self) -> None:
        # a resumed optimiser has the rate that the step would have had if the run had kept its number of steps
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.recipe.learning_rate * rate(self.recipe, self.global_step)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = self.objective(self.net, batch, batch_sum_of_all)
        self.log_dict({f"loss/{name}": value.detach() for name, value in loss.terms.items()})
        self.log("loss", loss.total.detach(), prog_bar=True)
        if index % self.recipe.accumulate == 0:
            self.step_loss = []
        self.step_loss.append(float(self.trainer.strategy.reduce(loss.total.detach(), reduce_op="mean")))
        return loss.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rate = optimizer.param_groups[0]["lr"]
        finite = all(map(math.isfinite, self.step_loss))
        if self.recipe.precision != "16-mixed":  # its scaler checks the gradients, and overflows while it adapts
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            finite = finite and bool(torch.stack(torch._foreach_norm(grads)).isfinite().all())
        finite = self.trainer.strategy.reduce_boolean_decision(finite)  # a process has only its part if sharded
        self._skipped = not finite
        if finite:
            return
        optimizer.zero_grad(set_to_none=True)  # without gradients the step changes nothing
        self.bad_steps += 1
        if self.bad_steps > self.recipe.most_bad_steps:
            raise DivergenceError(
                f"{self.bad_steps} steps had a loss or gradients that are not finite, the last one step "
                f"{self.global_step}. Start a new run from its weights (initial=...) with a lower "
                "learning_rate, or with precision 32-true."
            )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: Any = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        sharded = self.trainer.strategy.model
        if gradient_clip_val is not None and isinstance(sharded, FullyShardedDataParallel):  # Lightning refuses to
            sharded.clip_grad_norm_(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        if (index + 1) % self.recipe.accumulate:
            return
        observed, self.objective.observed = self.objective.observed, []
        if self._skipped:
            return
        net: Any = self.net  # only networks with a learned schedule observe
        for times, errors in observed:
            net.learned_schedule.observe(
                *(cast(Tensor, self.all_gather(values)).flatten() for values in (times, errors))
            )
        self.ema.update_parameters(self.net)

    def validation_step(self, batch: Batch, index: int) -> None:
        restored = self.restored(batch)
        pairs = (restored, batch.clean)
        in_luma = [luma(image) for image in pairs]
        columns = (psnr(batch.degraded, batch.clean), psnr(*pairs), ssim(*pairs), psnr(*in_luma), ssim(*in_luma))
        values = torch.stack([column.double() for column in columns], dim=1).clamp_max(EQUAL).tolist()
        self._scores += zip(batch.categories, values, strict=True)

    def restored(self, batch: Batch) -> Tensor:
        """Restore a batch to [B, 3, H, W] in [0, 1] by the averaged network, with the noise of seed 0."""
        net = cast(Network, self.ema.module)
        steps = self.recipe.validation_steps
        y = batch.degraded * 2 - 1
        return (restore_tensor(net, y, steps=steps, sampler=net.transport.samplers[0], seed=0) + 1) / 2

    def on_validation_epoch_end(self) -> None:
        """Append a row to the history: step, gain (dB), the means of COLUMNS over the degraded held-out samples, and
        those of each category."""
        scores = self._scores
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            dist.all_gather_object(gathered, scores)
            in_order = [score for row in zip(*gathered, strict=True) for score in row]
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning's connector
            scores = in_order[: len(data.held_out)]  # without the repetitions that give all processes equally many
        self._scores = []
        table: dict[str, list[list[float]]] = {}
        for category, values in sorted(scores):
            table.setdefault(category, []).append(values)
        categories = {name: _means(rows) for name, rows in table.items()}
        degraded = [values for category, values in scores if category != CLEAR]
        means = _means(degraded or [values for _, values in scores])
        row = {"gain": round(means["psnr"] - means["psnr_in"], 4), **means}
        self.log_dict({f"validation/{name}": value for name, value in row.items()})
        self.log("gain", row["gain"], prog_bar=True)
        self.history.append({"step": self.global_step, **row, "categories": categories})

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = optimizer_of(recipe, self.net)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(recipe, step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"], checkpoint["bad_steps"] = self.history, self.bad_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history, self.bad_steps = checkpoint["history"], checkpoint["bad_steps"]


def optimizer_of(recipe: Recipe, net: torch.nn.Module) -> torch.optim.Optimizer:
    """Build the recipe's optimiser for a network's weights."""
    kind = Muon if recipe.optimizer == "muon" else torch.optim.AdamW
    return kind(net.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)


def rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step as a share of the peak.

    It has a linear warm-up, is then constant, and falls by a cosine to final_learning_rate over the last decay_steps
    (by default all steps after the warm-up).
    """
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    floor = recipe.final_learning_rate / recipe.learning_rate
    falling = recipe.steps - recipe.warmup_steps if recipe.decay_steps is None else recipe.decay_steps
    progress = min(1.0, max(0.0, 1 - (recipe.steps - step) / max(1, falling)))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def batch_sum_of_all(values: Tensor) -> Tensor:
    """``Σ_b`` over the batches of all processes, differentiable: averaged gradients of equal losses are that of one."""
    total = values.sum(0)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return total
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(total)


def _means(rows: list[list[float]]) -> dict[str, float]:
    return {name: round(sum(column) / len(column), 4) for name, column in zip(COLUMNS, zip(*rows, strict=True))}
