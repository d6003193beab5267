"""Two processes train the network that one does: the same samples, gradients that are averaged, weights that agree."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from f2d.nets.models import load_network
from f2d.training.recipe import LossWeights, Stage

pytest.importorskip("lightning", reason="needs the [train] extra")
from f2d.training.fit import fit

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "stages": (Stage(0, 32, 4), Stage(12, 32, 2)),
    "steps": 20,
    "validate_every": 10,
    "validation_images": 3,  # which two processes cannot share evenly
    "losses": LossWeights(hardness=1.0),  # whose mean needs the sums of all processes
    "warmup_steps": 0,
    "learning_rate": 1e-3,
    "final_learning_rate": 1e-3,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def in_two_processes(recipe: Path, data: Path, out: Path) -> None:
    """two_processes.py twice, as torchrun starts it."""
    script = [sys.executable, "-m", "tests.training.two_processes", str(recipe), str(data), str(out)]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = os.environ | shared | {"OMP_NUM_THREADS": "1", "NODE_RANK": "0", "TQDM_DISABLE": "1"}
    processes = [
        subprocess.Popen(
            script,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=500)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


def vector(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """All weights; a learned schedule, whose counts are larger, is not among them."""
    weights = (value for name, value in state.items() if not name.startswith("learned_schedule"))
    return torch.cat([value.flatten().double() for value in weights])


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        ("learned", "adamw"),
        ("learned", "muon"),
        *(pytest.param(kind, "adamw", marks=pytest.mark.slow) for kind in ("image_level", "resflow")),
    ],
)
def test_two_processes_train_as_one(kind, optimizer, photographs, small, weights, tmp_path):
    recipe = small(kind, optimizer=optimizer, **CHANGES)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    in_two_processes(tmp_path / "recipe.yaml", photographs, tmp_path)
    alone = fit(recipe, photographs, tmp_path / "one", accelerator="cpu", devices=1).state_dict()
    one = vector(alone)
    moved = (one - vector(load_network(weights(kind)).state_dict())).norm()
    ratio = {}
    for name in ("reduced", "alone"):
        states = [torch.load(tmp_path / f"{name}_{rank}.pt") for rank in range(2)]
        first, second = map(vector, states)
        assert torch.equal(first, second) == (name == "reduced")
        ratio[name] = float((first - one).norm() / moved)
        for key in alone:  # what all processes saw, in the order of one
            if key.startswith("learned_schedule") and name == "reduced":
                for state in states:
                    torch.testing.assert_close(state[key], alone[key], rtol=0.01, atol=1e-4)
    print(f"{kind}: off by {ratio['reduced']:.1e} of the way; without reduced gradients {ratio['alone']:.1e}")
    assert ratio["reduced"] <= 0.01
    assert ratio["alone"] > 0.01  # the check sees gradients that are not reduced

    # what is logged and measured is of all processes, however many
    rows = [(tmp_path / out / "losses.csv").read_text().splitlines()[1:] for out in ("one", "reduced")]
    for mine, theirs in zip(*rows, strict=True):
        assert float(mine.split(",")[1]) == pytest.approx(float(theirs.split(",")[1]), rel=0.01)
    history = [(tmp_path / out / "history.json").read_text() for out in ("one", "reduced")]
    assert [text.count('"step"') for text in history] == [2, 2]


def test_devices_are_started_by_the_command(photographs, small, tmp_path):
    """`f2d train --devices 2` starts the second process by itself."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small(steps=2, validate_every=2).to_yaml())
    command = [
        sys.executable,
        "-m",
        "f2d",
        "train",
        str(recipe),
        "--data",
        str(photographs),
        "-o",
        str(tmp_path / "out"),
    ]
    command += ["--accelerator", "cpu", "--devices", "2"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len((tmp_path / "out" / "losses.csv").read_text().splitlines()) == 3
    load_network(tmp_path / "out" / "weights")
