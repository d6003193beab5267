"""A fake Hub with one repository, and a process whose client asks it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from f2d.nets import F2DNet
from tests.ecosystem.fake_hub import FakeHub
from tests.nets.small import TINY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def nets() -> dict[str, F2DNet]:
    """Two networks of one size and other weights, none of them zero: of the revisions main and v1."""
    found = {}
    for seed, revision in enumerate(("main", "v1")):
        torch.manual_seed(seed)
        net = F2DNet(TINY).eval().requires_grad_(False)
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        found[revision] = net
    return found


def settings(url: str, home: Path, **others: str) -> dict[str, str]:
    """The environment of a process whose Hub is at `url`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DISABLE_XET": "1"}
    return {**kept, **ours, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", **others}


@pytest.fixture(scope="session")
def _served(tmp_path_factory):
    hub = FakeHub(tmp_path_factory.mktemp("hub"))
    environment = settings(hub.url, tmp_path_factory.mktemp("home"))
    command = [sys.executable, "-m", "tests.ecosystem.loader"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=environment, cwd=ROOT, **pipes) as process:
        yield hub, process
        process.stdin.close()
    hub.stop()


@pytest.fixture
def hub(_served, tmp_path, nets):
    """A running Hub with owner/tiny (revisions main and v1), and nothing asked of it yet."""
    hub, _ = _served
    hub.folder, hub.silent = tmp_path / "hub", False
    for revision, net in nets.items():
        net.save_pretrained(hub.folder / "owner/tiny" / revision)
        (hub.folder / "owner/tiny" / revision / "pytorch_model.bin").write_bytes(b"a pickle")
    hub.requests.clear()
    yield hub
    hub.stop()
    hub.start()


@pytest.fixture
def load(_served, tmp_path):
    """load(what, source, **options) -> {"config", "weights"} or {"error", "message"}, with a cache of its own."""
    _, process = _served
    folder = tmp_path / "cwd"
    folder.mkdir()

    def ask(what: str, source: str, **options):
        options = options if "cache_dir" in options else {"cache_dir": str(tmp_path / "cache"), **options}
        process.stdin.write(json.dumps([what, source, options, str(folder)]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    ask.folder = folder
    return ask
