"""One of two processes of the test beside it: trains twice, gradients reduced and not, and keeps its weights."""

import os
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from f2d.training.fit import fit
from f2d.training.recipe import Recipe

if __name__ == "__main__":
    recipe, data, out = map(Path, sys.argv[1:])
    for name in ("reduced", "alone"):
        if name == "alone":  # as if the trainer called the module that DDP wraps
            DistributedDataParallel.require_backward_grad_sync = property(lambda _: False, lambda *_: None)
        net = fit(Recipe.load(str(recipe)), data, out / name, accelerator="cpu")
        torch.save(net.state_dict(), out / f"{name}_{os.environ['RANK']}.pt")
