"""`python -m bench.cluster`: images per second and memory of `f2d restore` alone and with one and two Ray workers.

The images are JPEG of 384x256 in a folder. Each way runs as a user would start it. Seconds of one process are those of
the whole command, and of Ray those of the whole job with the start of its workers, without the start of Ray itself.
The second rate leaves out the start: it is that between the first and the last finished image. Memory is the peak
resident memory of one process: of the command, and of the largest worker. 200 images take two to four minutes.
"""

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.environment import environment
from f2d.cluster import Actors, restore_on_ray
from f2d.demo import sample_photograph
from f2d.images import open_image


class Measured(NamedTuple):
    """seconds: of all. finished: when each image was, in seconds of the clock. peak: resident memory in MiB."""

    seconds: float
    finished: list[float]
    peak: int


def worker_peak() -> int:
    """Return the peak resident memory of the largest Ray worker that restores, in MiB."""
    peaks = [0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                found = re.search(r"VmHWM:\s*(\d+) kB", (folder / "status").read_text())
                peaks.append(int(found[1]) >> 10 if found else 0)
        except OSError:  # it has ended
            continue
    return max(peaks)


def alone(folder: Path, out: Path, threads: int) -> Measured:
    """Run `f2d restore`."""
    command = [sys.executable, "-m", "f2d", "restore", str(folder), "-o", str(out)]
    environ = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        finished = [time.perf_counter() for line in process.stdout if line.startswith(str(out))]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    assert process.returncode == 0
    return Measured(seconds, finished, used.ru_maxrss >> 10)


def on_ray(folder: Path, out: Path, workers: int) -> Measured:
    """Restore with Ray actors."""
    peaks, finished = [], []

    def progress(_: str, error: str) -> None:
        assert not error, error
        finished.append(time.perf_counter())
        peaks.append(worker_peak())

    seconds = restore_on_ray(str(folder), str(out), actors=Actors(workers), progress=progress).seconds
    return Measured(seconds, finished, max(peaks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    count = parser.parse_args().images
    import ray

    print(environment())
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {count} images of 384x256")
    print("\n| way | seconds | images per second | without the start | MiB of a process |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        picture = open_image(sample_photograph("coffee")).resize((384, 256))
        for i in range(count):
            picture.save(folder / f"{i:04}.jpg", quality=90 + i % 10)
        ways: dict[str, tuple[Callable[[Path, Path, int], Measured], int]]
        ways = {"one process, 1 thread": (alone, 1), "one process, 2 threads": (alone, 2)}
        ways |= {"Ray, 1 worker": (on_ray, 1), "Ray, 2 workers": (on_ray, 2)}
        for i, (way, (run, number)) in enumerate(ways.items()):
            if run is on_ray and not ray.is_initialized():
                ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            seconds, finished, peak = run(folder, Path(name) / f"out{i}", number)
            assert len(finished) == count
            rate = (count - 1) / (finished[-1] - finished[0])
            print(f"| {way} | {seconds:.1f} | {count / seconds:.2f} | {rate:.2f} | {peak} |", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
