"""Scratch memory of the compiled CPU part: as much as the work needs, and an error if there is less."""

import subprocess
import sys

import pytest
import torch

from f2d_kernels import backends, expert_assembly, use_backend

pytestmark = pytest.mark.skipif(backends()["cpp"] != "available", reason=f"cpp: {backends()['cpp']}")

LIMITED = """
import resource, torch
from f2d_kernels import transport_step

def step(channels):
    deltas = torch.zeros(1, 1, channels, 1, 1)
    return transport_step(deltas[0], deltas, torch.ones(1, 1), None, deltas[0], 0.0, 0.1, seed=1)

torch.set_num_threads(1)
step(8)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    step(65536)
except RuntimeError as error:
    print(error)
"""


def test_many_experts_and_channels_of_one_pixel():
    """Of 64 experts and 65536 channels; room for a whole tile of the maps is 64 GiB."""
    draw = torch.Generator().manual_seed(0)
    deltas, gates, maps = (torch.randn(s, generator=draw) for s in ((1, 64, 65536, 1, 1), (1, 64), (1, 64, 1, 1)))
    exact = torch.einsum("bk,bkhw,bkchw->bchw", gates.double(), maps.double(), deltas.double())
    with use_backend("cpp"):
        torch.testing.assert_close(expert_assembly(deltas, gates, maps).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_too_little_memory_is_an_error_and_does_not_end_the_process():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bytes of scratch memory could not be allocated" in done.stdout
