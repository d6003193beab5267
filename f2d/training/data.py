"""Provide a recipe's data to Lightning: one loader per process, each with its own share."""

from functools import partial
from typing import cast

import lightning
from torch.utils.data import DataLoader, Dataset

from f2d.data import Batch, Draft, Mixture, Sample, finish, stack
from f2d.training.batches import Batches
from f2d.training.recipe import Recipe


class TrainingData(lightning.LightningDataModule):
    """Loaders of a mixture: training batches from step `first` on, and the samples held out for validation."""

    def __init__(
        self, recipe: Recipe, mixture: Mixture, held_out: list[Sample], factors: tuple[str, ...], first: int = 0
    ):
        super().__init__()
        self.recipe, self.mixture, self.held_out, self.factors, self.first = recipe, mixture, held_out, factors, first

    @property
    def _place(self) -> lightning.Trainer:
        assert self.trainer is not None  # the trainer asks for the loaders
        return self.trainer

    def train_dataloader(self) -> DataLoader:
        recipe, place = self.recipe, self._place
        batches = Batches(
            recipe.stages, recipe.steps, recipe.accumulate, self.first, place.global_rank, place.world_size
        )
        finished = partial(_stack_and_finish, factors=self.factors, varied_fraction=recipe.varied_fraction)
        return DataLoader(
            self.mixture,
            batch_sampler=batches,
            collate_fn=stack if recipe.synthesis == "device" else finished,
            num_workers=recipe.workers,
            persistent_workers=recipe.workers > 0,
            pin_memory=place.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader:
        """Return one sample at a time, equally many per process; if the split is uneven, some samples come twice."""
        number, world = len(self.held_out), self._place.world_size
        share = [self.held_out[i % number] for i in range(self._place.global_rank, -(-number // world) * world, world)]
        return DataLoader(
            cast(Dataset, share), batch_size=1, collate_fn=partial(_stack_and_finish, factors=self.factors)
        )

    def on_after_batch_transfer(self, batch: Batch | Draft, dataloader_idx: int) -> Batch:
        return batch if isinstance(batch, Batch) else finish(batch, self.factors, self.recipe.varied_fraction)


def _stack_and_finish(samples: list[Sample], factors: tuple[str, ...], varied_fraction: float = 0.0) -> Batch:
    return finish(stack(samples), factors, varied_fraction)
