"""Large results of the compiled CPU part lie in huge pages, whose page faults cost a ninth of those of small ones."""

from pathlib import Path

import pytest
import torch

import f2d_kernels as fk
from bench.memory import return_freed_memory

from .support import running_on

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SHAPE = (1, 36, 512, 512)  # 36 MiB, a mapping of its own
pytestmark = pytest.mark.skipif(not THP.exists(), reason="this kernel has no transparent huge pages")


@pytest.fixture(autouse=True)
def new_memory_each_time():
    """Other tests of the same process may have told the C library to keep freed memory, advice included."""
    if not return_freed_memory():
        pytest.skip("no C library whose allocation can be set")


def advised(tensor):
    """Whether the mapping in the middle of a tensor's memory carries the advice: flag hg of /proc/self/smaps."""
    place = tensor.data_ptr() + tensor.untyped_storage().nbytes() // 2
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            start, end = (int(number, 16) for number in first.split("-"))
            inside = start <= place < end
        elif inside and first == "VmFlags:":
            return "hg" in line.split()
    raise AssertionError("the tensor lies in no mapping")


def image():
    return torch.zeros(SHAPE, requires_grad=True)


def images_up_to_new_memory():
    """Images, only the last of which has no advice: memory that earlier tests freed may carry it, and is used up."""
    images = [image()]
    while advised(images[-1]) and len(images) < 8:
        images.append(image())
    return images


def channels(value=0.0):
    return torch.full((SHAPE[1],), value)


CALLS = {
    "expert_assembly": lambda x: fk.expert_assembly([x], torch.ones(1, 1), None, None),
    "lognormal_transition": lambda x: fk.lognormal_transition(x, torch.zeros(SHAPE), -0.5, 0.2, seed=1),
    "transport_step": lambda x: fk.transport_step(
        x, [torch.zeros(SHAPE)], torch.ones(1, 1), torch.ones(1, 1, *SHAPE[2:]), torch.zeros(SHAPE), -0.5, 0.2, seed=1
    )[0],
    "gaussian_transition": lambda x: fk.gaussian_transition([x], torch.ones(1), 0.1, seed=1),
    "expert_head": lambda x: fk.expert_head(
        [x], torch.zeros(1, SHAPE[1], SHAPE[1]), None, None, torch.ones(1, 1), None, torch.zeros(SHAPE)
    ),
    "group_norm_silu": lambda x: fk.group_norm_silu(x, 2, channels(), channels()),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_lie_in_huge_pages(name):
    with running_on("cpp"):
        *_held, x = images_up_to_new_memory()
        assert not advised(x)
        out = CALLS[name](x)
        (d_x,) = torch.autograd.grad(out, x, torch.zeros(SHAPE))
        assert advised(out) and advised(d_x)
