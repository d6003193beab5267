"""Callbacks that write the files of a run; each is replaced atomically, except for the growing table of losses."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from f2d import checkpoints
from f2d.data import Batch, Sample, finish, stack
from f2d.images import to_picture
from f2d.images.sheet import Panel, colour_map, sheet
from f2d.replacing import naming, replacing
from f2d.training.module import TrainingModule
from f2d.training.stopping import Stopping

RECIPE, LAST, HISTORY, LOSSES = "recipe.yaml", "last.ckpt", "history.json", "losses.csv"
WEIGHTS, BEST, SAMPLES = "weights", "best", "samples"
DATA = "data"  # in a state: the fingerprint of the images that the run was trained on


class StateFile(TorchCheckpointIO):
    """Writes a state to a file that appears whole or not at all; Lightning's own way is by a second copy in /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        state = io.BytesIO()  # to a file that is full, torch.save raises an error about its own format
        torch.save(checkpoint, state)
        with replacing(Path(path)) as part:
            part.write_bytes(state.getbuffer())


class SaveState(Callback):
    """Saves `last.ckpt` every `every` steps and at the end, from which a run resumes bit-exactly; also at the end of
    the current step when SIGTERM or Ctrl-C asks the run to stop, which it then does.

    Lightning's ModelCheckpoint saves inside the step that it follows, when the count of finished batches is one short
    and the validation of that step is still to come; here a state is saved at the start of the next step.
    """

    def __init__(self, out: Path, every: int, data: str):
        self.path, self.every, self.data, self._saved = out / LAST, every, data, 0
        self._stopping = Stopping()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: TrainingModule, batch: object, index: int
    ) -> None:
        if index % module.recipe.accumulate:
            return  # within a step
        step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._stopping.asked, all=False)  # any process was asked
        if step > self._saved and (stop or step % self.every == 0):
            self._save(trainer)
        if stop:
            self._stopping.leave()

    def on_save_checkpoint(self, trainer: lightning.Trainer, module: TrainingModule, state: dict[str, Any]) -> None:
        state[DATA] = self.data
        # the fetched batch will be fetched again; if it counted, each resumption would shift the validations
        for counts in state["loops"]["fit_loop"]["epoch_loop.batch_progress"].values():
            if isinstance(counts, dict):
                counts["ready"] = counts["completed"]

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        self._saved = trainer.global_step
        self._stopping.hold()

    def on_train_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step > self._saved:
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.path, weights_only=False)


class SaveWeights(Callback):
    """Writes weights/ (the averaged network) and history.json after every validation, and best/ after the best one."""

    def __init__(self, out: Path):
        self.out = out
        self._state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        self._save(trainer, module)
        history = module.history
        if trainer.is_global_zero and history[-1]["psnr"] >= max(row["psnr"] for row in history):
            self._write(module, BEST)

    def on_train_end(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        self._save(trainer, module)

    def _save(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        # every process takes part in gathering a sharded model, and the first one receives it
        self._state = trainer.strategy.lightning_module_state_dict()
        if not trainer.is_global_zero:
            return
        self._write(module, WEIGHTS)
        rows = ",\n".join(json.dumps(row) for row in module.history)
        with replacing(self.out / HISTORY) as part:
            part.write_text(f"[\n{rows}\n]\n")

    def _write(self, module: TrainingModule, name: str) -> None:
        prefix = "ema.module."
        # float64, which a learned schedule has, stays
        state = {
            key.removeprefix(prefix): value.to(torch.promote_types(value.dtype, torch.float32))
            for key, value in self._state.items()
            if key.startswith(prefix)
        }
        checkpoints.write(self.out / name, module.net.config.to_dict(), state)


class LogLosses(Callback):
    """Writes losses.csv: step, loss (mean over the step's parts and processes), learning rate, steps skipped so far.

    A resumed run drops the rows of the steps that it repeats.
    """

    def __init__(self, out: Path, first: int):
        self.path, self.first = out / LOSSES, first

    def on_train_start(self, trainer: lightning.Trainer, *_: object) -> None:
        if not trainer.is_global_zero:
            return
        rows = [["step", "loss", "learning_rate", "bad_steps"]]
        if self.first and self.path.exists():
            with self.path.open(newline="") as file:
                whole = [row for row in csv.reader(file) if len(row) == 4 and row[0].isdecimal()]
            rows += [row for row in whole if int(row[0]) <= self.first]
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        with replacing(self.path) as part:
            part.write_text(text.getvalue())

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: TrainingModule, outputs: object, batch: object, index: int
    ) -> None:
        if not trainer.is_global_zero or (index + 1) % module.recipe.accumulate:
            return
        loss = sum(module.step_loss) / len(module.step_loss)
        with naming(self.path), self.path.open("a", newline="") as file:
            csv.writer(file).writerow([trainer.global_step, repr(loss), repr(module.rate), module.bad_steps])


class DrawSamples(Callback):
    """Writes samples/step_N.png after every validation: degraded, restored and clean, with the maps if there are any.

    TensorBoard receives the same images.
    """

    def __init__(self, out: Path, held_out: list[Sample], factors: tuple[str, ...]):
        self.folder, self.factors = out / SAMPLES, factors
        self.samples = held_out[:4]

    @torch.no_grad()
    def on_validation_end(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        if isinstance(trainer.strategy, FSDPStrategy):
            return  # a sharded network can only restore on all processes at once
        if not trainer.is_global_zero:
            return
        figure = sheet(f"step {trainer.global_step}", "held-out pictures", [self._row(module, s) for s in self.samples])
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / f"step_{trainer.global_step:07d}.png") as part:
            figure.save(part, format="PNG")
        for experiment in (getattr(logger, "experiment", None) for logger in trainer.loggers):
            if experiment is not None and hasattr(experiment, "add_image"):
                values = torch.frombuffer(bytearray(figure.tobytes()), dtype=torch.uint8)
                pixels = values.view(figure.height, figure.width, 3)
                experiment.add_image("samples", pixels, trainer.global_step, dataformats="HWC")

    def _row(self, module: TrainingModule, sample: Sample) -> list[Panel]:
        batch = finish(stack([sample]), self.factors)
        batch = batch._replace(degraded=batch.degraded.to(module.device))
        name = sample.category.replace("_", " + ")
        pictures = [(batch.degraded, name), (module.restored(batch), "restored"), (batch.clean, "clean")]
        return [Panel(to_picture(image[0].cpu()), label) for image, label in pictures] + self._maps(module, batch)

    def _maps(self, module: TrainingModule, batch: Batch) -> list[Panel]:
        net: Any = module.ema.module
        if not getattr(net.config, "spatial_maps", False):
            return []
        dtype = next(net.parameters()).dtype
        maps: Tensor = net.analyse((batch.degraded * 2 - 1).to(dtype)).maps[0].float().cpu()
        return [Panel(colour_map(m.numpy()), name) for name, m in zip(self.factors, maps)]
