"""Train a recipe: data, network, Lightning trainer, and the files of a run."""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from f2d import checkpoints
from f2d.data import Mixture
from f2d.nets.models import Network, build, config_of, load_network
from f2d.replacing import remove_leftovers, replacing
from f2d.training.batches import Batches
from f2d.training.callbacks import (
    BEST,
    HISTORY,
    LAST,
    LOSSES,
    RECIPE,
    SAMPLES,
    WEIGHTS,
    DrawSamples,
    LogLosses,
    SaveState,
    SaveWeights,
    StateFile,
)
from f2d.training.checks import (
    check_categories,
    check_data,
    check_dilated,
    check_folder,
    check_outside,
    check_validation,
    factors_of,
    fingerprint,
    resumed,
)
from f2d.training.data import TrainingData
from f2d.training.module import TrainingModule
from f2d.training.recipe import Recipe

ACCELERATORS = ("auto", "cpu", "cuda")


def fit(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    devices: int | None = None,
    accelerator: str = "auto",
) -> Network:
    """Train `recipe` on the data in `data`, and return the averaged network in eval mode.

    `out` receives recipe.yaml, last.ckpt (from which `resume` continues), losses.csv (one row per step), history.json
    (one row per validation: PSNR in dB and SSIM, RGB and luma, by category), weights/ and best/ (model.safetensors and
    config.json of the averaged network at the last and the best validation), samples/ (images) and TensorBoard's events
    if it is installed. Each file is replaced atomically, except losses.csv, which grows.

    devices is the number of processes on this machine; by default the launcher's, otherwise one per GPU, or one on a
    CPU. Under torchrun or SLURM all of their processes take part. Up to rounding, the network does not depend on their
    number.

    Raises ValueError before the first step for unsuitable data (see `f2d.data.Mixture`), a batch that cannot be
    split, factors that the losses or data do not know, and a last.ckpt that cannot be read, was trained on other
    images, has more steps than the recipe, or belongs to another one (only `f2d.training.checks.CHANGEABLE` may
    differ); FileExistsError if `out` contains a run and `resume` is not set, or weights without a last.ckpt;
    DivergenceError (a ValueError) if too many steps are not finite.
    """
    last = out / LAST
    check_folder(out, recipe, resume)
    net = load_network(recipe.initial) if recipe.initial else _new(recipe)
    check_validation(net, recipe)
    first, trained_on = resumed(last, net) if last.exists() else (0, None)
    if first > recipe.steps:  # its learning rate has not followed this recipe
        raise ValueError(f"steps must be at least {first}, the steps that {out} has taken, got {recipe.steps}")
    factors = factors_of(net, recipe)
    crops = {f"stages.{i}.crop": stage.crop for i, stage in enumerate(recipe.stages) if stage.start < recipe.steps}
    validated = recipe.validation_crop or max(crops.values())
    crops["validation_crop"] = validated
    mixture = Mixture(recipe.sources, data, factors, recipe.augment, recipe.seed, crop_check=crops)
    check_outside(out, data, recipe, mixture)
    check_categories(recipe, mixture)
    images = fingerprint(recipe, mixture, data)
    check_data(out, trained_on, images)
    mixture, held_out = mixture.split(recipe.validation_images, validated)
    machines, devices = _placement(devices, accelerator)
    Batches(recipe.stages, recipe.steps, recipe.accumulate, world=machines * devices)  # raises its error early
    if recipe.precision == "bf16-mixed" and (accelerator == "cpu" or not torch.cuda.is_available()):
        check_dilated(net)

    net.train()  # a loaded network is in eval mode, without the noise on its gates
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # unknown to PyTorch's stubs
    module = TrainingModule(recipe, net)
    trainer = lightning.Trainer(
        max_steps=recipe.steps,
        accelerator=accelerator,
        devices=devices,
        num_nodes=machines,
        strategy=_strategy(recipe, machines * devices),
        precision=cast(Any, recipe.precision),
        plugins=[StateFile()],
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.gradient_clip or None,
        callbacks=[
            SaveWeights(out),
            LogLosses(out, first),
            DrawSamples(out, held_out, factors),
            SaveState(out, recipe.save_every, images),  # last, so that a run saved at its end has all its files
            Bar(refresh_rate=20),
        ],
        val_check_interval=min(recipe.validate_every, recipe.steps) * recipe.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(out, name=None, version="tensorboard") if find_spec("tensorboard") else False,
        log_every_n_steps=min(20, recipe.steps * recipe.accumulate),
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the sampler splits the batches itself
        enable_model_summary=False,
    )
    if trainer.is_global_zero:
        _prepare(out, recipe)
    batches = TrainingData(recipe, mixture, held_out, factors, first)
    with warnings.catch_warnings():  # the average is in eval mode, and the sampler resumes itself
        warnings.filterwarnings("ignore", "Found .* in eval mode|.*your dataloader is not resumable|.*treespec")
        try:
            trainer.fit(module, datamodule=batches, ckpt_path=last if last.exists() else None, weights_only=True)
            if module.history[-1:] == [] or module.history[-1]["step"] < trainer.global_step:
                trainer.validate(module, datamodule=batches, verbose=False)  # the last steps are validated as well
        except (ValueError, OSError) as error:
            raise _without_traceback(error) from None
    average: Any = module.ema.module
    return average.to(memory_format=torch.contiguous_format).eval()


class Bar(TQDMProgressBar):
    """Lightning's progress bar without the name of TensorBoard's folder as a version."""

    def get_metrics(self, *args: Any) -> dict:
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}


def _without_traceback(error: Exception) -> Exception:
    """Convert an error of a loader's process, which carries that process's traceback as text, to the plain error."""
    text = str(error)
    if "DataLoader worker" not in text:
        return error
    return ValueError(text.strip().splitlines()[-1].partition(": ")[2])


def _prepare(out: Path, recipe: Recipe) -> None:
    """Create the folder of a run with its recipe, and remove half-written files of a killed run."""
    out.mkdir(parents=True, exist_ok=True)
    files = [RECIPE, LAST, HISTORY, LOSSES]
    files += [f"{folder}/{name}" for folder in (WEIGHTS, BEST) for name in (checkpoints.MODEL, checkpoints.CONFIG)]
    remove_leftovers((out / name for name in files), [out / SAMPLES])
    with replacing(out / RECIPE) as part:
        part.write_text(recipe.to_yaml())


def _new(recipe: Recipe) -> Network:
    """Build the initial network from the recipe and its seed, the same on every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return build(config_of(recipe.model, recipe.network))


def _placement(devices: int | None, accelerator: str) -> tuple[int, int]:
    """Return (machines, devices on each) as set by torchrun or SLURM; otherwise one machine and those requested."""
    if accelerator not in ACCELERATORS:
        raise ValueError(f"accelerator must be one of {', '.join(ACCELERATORS)}, got {accelerator!r}")
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator must be cpu or auto, got cuda, but no GPU is available to PyTorch")
    told = os.environ
    if "LOCAL_WORLD_SIZE" in told:  # torchrun
        local = int(told["LOCAL_WORLD_SIZE"])
        return max(1, int(told.get("WORLD_SIZE", local)) // local), local
    if int(told.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in told:  # srun
        machines = int(told.get("SLURM_NNODES", 1))
        return machines, devices or int(told["SLURM_NTASKS"]) // machines
    on_cpu = accelerator == "cpu" or not torch.cuda.is_available()
    return 1, devices or (1 if on_cpu else torch.cuda.device_count())


def _strategy(recipe: Recipe, processes: int) -> Strategy | str:
    if recipe.strategy == "fsdp":
        from f2d.nets.f2dnet.experts import Expert
        from f2d.nets.residual_block import ResidualBlock

        return FSDPStrategy(auto_wrap_policy={ResidualBlock, Expert}, state_dict_type="full")
    if recipe.strategy == "ddp" or processes > 1:
        # buffers follow from the same samples everywhere; broadcasting them would also synchronise validation
        return DDPStrategy(find_unused_parameters=False, broadcast_buffers=False)
    return "auto"
