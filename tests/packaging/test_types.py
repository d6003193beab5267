"""What a type checker says of a user's program, for the packages as they lie in site-packages."""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# reveal_type's answer, or the code of the error, is the comment at the end of a line
PROGRAM = """
import numpy as np
import torch
from PIL import Image

import f2d
import f2d_kernels
from f2d import F2DNet, restore_tensor

restorer = f2d.load("f2d-lite")
reveal_type(restorer("photo.jpg").image)  # Image
reveal_type(restorer(Image.new("RGB", (8, 8)), steps=2, only={"rain"}).image)  # Image
reveal_type(restorer(torch.rand(3, 8, 8)).image)  # Tensor
reveal_type(restorer(torch.rand(3, 8, 8)).maps)  # Tensor
reveal_type(restorer.restore_batch(torch.rand(1, 3, 8, 8), seed=1))  # Tensor
pixels: np.ndarray = restorer(np.zeros((8, 8, 3), np.uint8)).image
restorer("photo.jpg", step=2)  # call-overload
restorer("photo.jpg", steps="two")  # call-overload
restorer(3)  # call-overload
f2d.lode("f2d-lite")  # attr-defined

net = F2DNet.from_pretrained("f2d-lite")
reveal_type(net)  # F2DNet
reveal_type(net.config.factors)  # tuple[str, ...]
reveal_type(restore_tensor(net, torch.rand(1, 3, 8, 8)))  # Tensor
restore_tensor(net)  # call-arg

x, deltas, gates = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 3, 4, 4), torch.rand(1, 2)
reveal_type(f2d_kernels.transport_step(x, deltas, gates, None, None, -0.5, 0.1, seed=7))  # tuple[Tensor, Tensor]
reveal_type(f2d_kernels.group_norm_silu(x, 3, None, None))  # Tensor
reveal_type(f2d_kernels.group_norm_silu(x, 3, None, None, return_mean=True))  # tuple[Tensor, Tensor]
reveal_type(f2d_kernels.expert_assembly(deltas, gates))  # Tensor
reveal_type(f2d_kernels.backends())  # dict[str, str]
reveal_type(f2d_kernels.__version__)  # str
f2d_kernels.expert_assembly(deltas)  # call-arg
f2d_kernels.lognormal_transition("x", x, -0.5, 0.1)  # arg-type
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment with the packages, as files, beside everything this one has."""
    folder = tmp_path_factory.mktemp("user") / "venv"
    venv.create(folder)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in ("f2d", "f2d_kernels"):
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "weights"))
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def test_a_users_program_has_the_types_that_the_documentation_promises(python, tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    # the cache of `make lint`, which is kept by its options: without, PyTorch alone takes half a minute
    options = [f"--cache-dir={ROOT / '.mypy_cache'}", f"--config-file={ROOT / 'pyproject.toml'}"]
    options.append("--no-warn-unused-configs")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", f"--python-executable={python}", *options, "program.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    wanted = {n: line.rsplit("  # ", 1)[1] for n, line in enumerate(PROGRAM.splitlines(), 1) if "  # " in line}
    found: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        where = re.match(r"program\.py:(\d+): (?:error|note): (.*)", line)
        if where is None:
            assert line.startswith("Found "), done.stdout
            continue
        revealed = re.fullmatch(r'Revealed type is "(.*)"', where[2])
        code = re.search(r"\[([a-z-]+)\]$", where[2])
        if revealed or code:
            found.setdefault(int(where[1]), []).append((revealed or code)[1])
    bare = {n: re.sub(r"(\w+\.)+", "", texts[0]) for n, texts in found.items()}  # names without their modules
    assert bare == wanted, done.stdout + done.stderr
