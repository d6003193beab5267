"""Plans fit the memory given and say what would do; a restorer follows them."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from f2d.engine.execution import choose_execution
from f2d.engine.plan import POSITIONS, PROGRAM, _left_in_groups, available_memory, plan
from f2d.engine.restorer import Restorer
from f2d.nets import F2DNetConfig

MIB = 1 << 20
PRESETS = {name: F2DNetConfig.preset(name) for name in ("f2d-lite", "f2d-base", "f2d-paper")}


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 12000), width=st.integers(1, 12000), budget=st.integers(0, 16000), steps=st.integers(1, 3),
    name=st.sampled_from(sorted(PRESETS)), dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)  # fmt: skip
def test_a_plan_fits_or_names_the_least_that_would_do(height, width, budget, steps, name, dtype):
    def chosen(megabytes: int):
        return plan(height, width, megabytes * MIB, dtype, PRESETS[name], steps=steps)

    try:
        found = chosen(budget)
    except ValueError as error:
        least = int(str(error).split()[-2])
        assert least > budget
        assert chosen(least).predicted_bytes <= least * MIB
        with pytest.raises(ValueError, match=f"{width}x{height} does not fit into {least - 1} MiB"):
            chosen(least - 1)
        return
    assert found.predicted_bytes <= budget * MIB
    assert found.whole or found.positions >= 8 * -(-width // PRESETS[name].patch)
    assert found.in_files == (found.disk_bytes > 0)
    more = chosen(budget * 2)  # never a worse way with more memory
    assert (more.whole, not more.in_files) >= (found.whole, not found.in_files)


def test_what_is_small_is_whole_and_exact_is_whole():
    lite = PRESETS["f2d-lite"]
    for size in ((1, 1), (256, 256), (720, 1080)):
        assert plan(*size, 1 << 30, torch.bfloat16, lite).whole
    large = plan(9000, 9000, 7 << 30, torch.bfloat16, lite)
    assert not large.whole and large.in_files
    assert plan(9000, 9000, 7 << 30, torch.bfloat16, lite, exact=True).whole
    assert plan(9000, 9000, 64 << 30, torch.bfloat16, lite).whole


def test_the_network_s_part_does_not_grow_with_the_image():
    """From files: beyond the images (70 bytes a pixel) and the program, a band."""
    for side in (6000, 12000):
        found = plan(side, side, 32 << 30, torch.float32, PRESETS["f2d-paper"])
        assert found.in_files and found.predicted_bytes - PROGRAM - 70 * side**2 <= 11000 * 8 * side + 11000 * POSITIONS


def test_available_memory_is_that_of_this_machine():
    free = available_memory(torch.device("cpu"))
    assert PROGRAM < free < 1 << 50
    with open("/proc/meminfo") as lines:
        total = int(next(lines).split()[1]) * 1024
    assert free - PROGRAM <= total


@pytest.mark.parametrize(
    "own, at, names",
    [
        ("0::/job_7/step_0\n", "job_7", ("memory.max", "memory.current", "inactive_file")),
        (
            "3:cpuset:/\n2:hugetlb,memory:/slurm/uid_1/job_7\n0::/\n",
            "memory/slurm/uid_1",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
        ("0::/unknown/here\n", ".", ("memory.max", "memory.current", "inactive_file")),  # of a container
    ],
)
def test_the_limit_of_a_job_counts(tmp_path, own, at, names):
    """Only that of a container did, at the root: a job of SLURM was planned with the memory of the whole machine."""
    (tmp_path / "own").write_text(own)
    folder = tmp_path / "groups" / at
    folder.mkdir(parents=True)
    limit, used, cache = names
    (folder / limit).write_text(f"{4 << 30}\n")
    (folder / used).write_text(f"{3 << 30}\n")
    (folder / "memory.stat").write_text(f"{cache} {1 << 29}\nother 5\n")
    assert list(_left_in_groups(tmp_path / "groups", tmp_path / "own")) == [(1 << 30) + (1 << 29)]
    (folder / limit).write_text("max\n")
    assert list(_left_in_groups(tmp_path / "groups", tmp_path / "own")) == []
    assert list(_left_in_groups(tmp_path / "groups", tmp_path / "none")) == []


def test_memory_that_pytorch_keeps_is_free(monkeypatch):
    """It counted as used: after one large image, the next was restored in bands."""
    total, reserved, allocated = 24 << 30, 0, 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total - reserved, total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    before = available_memory(torch.device("cuda", 0))
    reserved = 16 << 30
    assert available_memory(torch.device("cuda", 0)) == before
    allocated = 5 << 30
    assert abs(before - available_memory(torch.device("cuda", 0)) - 0.8 * allocated) <= 1


def test_a_restorer_uses_bands_where_it_must(make_net):
    restorer = Restorer(make_net(), choose_execution("cpu", "float32"))
    images = torch.rand(2, 3, 161, 203, generator=torch.Generator().manual_seed(0))
    small = PROGRAM + 10 * MIB
    assert restorer.plan(images).whole and restorer.plan(images, exact=True, max_memory=0).whole
    assert restorer.plan(images, small).in_files
    whole = restorer(images, seed=3, steps=2, only=["rain"])
    bands = restorer(images, seed=3, steps=2, only=["rain"], max_memory=small)
    torch.testing.assert_close(bands.image, whole.image, rtol=0, atol=2e-5)
    for name in ("maps", "gates", "presence"):
        torch.testing.assert_close(getattr(bands, name), getattr(whole, name), rtol=0, atol=1e-5)
    alone = restorer(images[1], seed=3, steps=2, only=["rain"], max_memory=small)
    assert torch.equal(alone.image, bands.image[1])
    exact = restorer(images, seed=3, steps=2, only=["rain"], max_memory=small, exact=True)
    assert torch.equal(exact.image, whole.image)
    with pytest.raises(ValueError, match=r"203x161 does not fit into 100 MiB and needs at least \d+ MiB"):
        restorer(images, max_memory=100 * MIB)


def test_a_full_disk_is_said_before_work(make_net, monkeypatch):
    from f2d.engine import restorer as module

    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    restorer = Restorer(make_net(), choose_execution("cpu", "float32"))
    with pytest.raises(OSError, match="has no room for"):
        restorer(torch.rand(3, 161, 203), max_memory=PROGRAM + 10 * MIB)


# the peak of getrusage would be that of pytest's own process, which a child inherits
PEAK = r"""
import re, sys, torch, f2d
torch.set_num_threads(1)
restorer = f2d.load("f2d-lite", device="cpu", precision="float32")
image = torch.rand(3, int(sys.argv[1]), 1024)
chosen = restorer.plan(image[None], int(sys.argv[2]))
restorer(image, max_memory=int(sys.argv[2]))
peak = re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]
print(int(peak) * 1024, chosen.predicted_bytes, chosen.whole, chosen.in_files)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize(("height", "budget"), [(1024, 2048), (1024, 700), (2048, 900)])
def test_the_process_stays_within_what_was_predicted(height, budget):
    command = [sys.executable, "-c", PEAK, str(height), str(budget * MIB)]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(words[0]) <= int(words[1]) <= budget * MIB
