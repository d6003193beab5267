"""Fit a recipe: data, network, Lightning trainer, and the files a run leaves."""

import json
import pickle
import zipfile
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch.utils.data import DataLoader

from f2d.degradation import FACTORS
from f2d.nets import F2DNet
from f2d.replacing import replacing
from f2d.training.data import CleanCrops, Span, collate, find_photographs
from f2d.training.module import TransportModule
from f2d.training.recipe import Recipe


def fit(recipe: Recipe, data: Path, out: Path, *, resume: bool = False) -> F2DNet:
    """Train `recipe` on the clean photographs below `data`; returns the averaged network.

    `out` receives recipe.yaml, last.ckpt (resume from it with `resume`), history.json (validation PSNR gains in dB) and
    weights/ (model.safetensors, config.json), each replaced in one piece at every validation.

    Raises ValueError before the first step for an empty folder, a crop larger than a photograph, a network of other
    factors than the data have, a last.ckpt that cannot be read; FileExistsError when `out` holds another run and
    `resume` is not set.
    """
    last = out / "last.ckpt"
    if last.exists() and not resume:
        raise FileExistsError(f"{out} holds a run already; continue it with resume, or give another folder")
    paths = find_photographs(data, recipe.crop)
    if len(paths) < 2:
        raise ValueError(f"{data} holds one photograph; give at least two, one is held out to validate on")
    done = _steps_done(last) if last.exists() else 0
    count = min(recipe.validation_images, max(1, len(paths) // 10))
    held_out = paths[:: len(paths) // count][:count]
    train_paths = [p for p in paths if p not in set(held_out)]
    crops = CleanCrops(train_paths, recipe.crop, recipe.seed, recipe.categories)
    validation = CleanCrops(held_out, recipe.crop, recipe.seed).validation_batch(range(2 * recipe.validation_images))

    net = F2DNet.from_pretrained(recipe.initial) if recipe.initial else F2DNet.from_preset(recipe.model)
    if net.config.factors != FACTORS:
        raise ValueError(
            f"{recipe.initial} has the factors {', '.join(net.config.factors)}; the data are degraded with "
            f"{', '.join(FACTORS)}, in this order"
        )
    net.train()  # a loaded network is in eval mode, without the noise on its gates
    module = TransportModule(recipe, net.to(memory_format=torch.channels_last), validation)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "recipe.yaml") as part:
        part.write_text(recipe.to_yaml())

    loader = DataLoader(
        crops,
        recipe.batch_size,
        sampler=Span(done * recipe.batch_size, recipe.steps * recipe.batch_size),
        collate_fn=collate,
        num_workers=recipe.workers,
        persistent_workers=recipe.workers > 0,
    )
    trainer = lightning.Trainer(
        max_steps=recipe.steps,
        precision=recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
        callbacks=[
            SaveRun(out),
            TQDMProgressBar(refresh_rate=50),
        ],
        val_check_interval=recipe.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        devices=1,  # the sampler hands every process the same samples
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, DataLoader([0]), ckpt_path=str(last) if done else None)
    return module.weights_to_ship()


def _steps_done(last: Path) -> int:
    """The step a run was saved at; ValueError where the file is no state of a run."""
    try:
        return torch.load(last, weights_only=True, map_location="cpu")["global_step"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{last} is no state to resume from ({reason}); start again in another folder") from None


class SaveRun(Callback):
    """After every validation and at the end: averaged weights, validation history, and the state to resume from.

    Lightning's own ModelCheckpoint saves before the validation of the same step, which would lose a row of the history.
    """

    def __init__(self, out: Path):
        self.out = out
        self.saved_at = -1

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.save(trainer, module)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.saved_at != trainer.global_step:  # the last steps, where their number is no multiple of validate_every
            self.save(trainer, module)

    def save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.saved_at = trainer.global_step
        module.weights_to_ship().save_pretrained(self.out / "weights")
        with replacing(self.out / "history.json") as part:
            part.write_text("[\n" + ",\n".join(json.dumps(row) for row in module.history) + "\n]\n")
        with replacing(self.out / "last.ckpt") as part:
            trainer.save_checkpoint(part)
