"""`python -m bench.cluster`: images a second and memory of `f2d restore` alone and with one and two Ray workers.

The images are JPEG of 384x256 in a folder. Each way runs as a user would start it. Seconds of one process are those of
the whole command, and of Ray those of the whole job with the start of its workers, without the start of Ray itself.
Memory is the peak resident memory of one process: of the command, and of the largest worker.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.environment import environment
from f2d.cluster import Actors, restore_on_ray
from f2d.demo import sample_photograph
from f2d.images import open_image


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


def alone(folder: Path, out: Path, threads: int) -> tuple[float, int]:
    """Run `f2d restore`; return its seconds and its peak resident memory in MiB."""
    command = [sys.executable, "-m", "f2d", "restore", str(folder), "-o", str(out)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10


def on_ray(folder: Path, out: Path, workers: int) -> tuple[float, int]:
    """Restore with Ray actors; return the job's seconds and the peak resident memory of the largest actor in MiB."""
    peaks, count = [0], 0

    def progress(_: str, error: str) -> None:
        nonlocal count
        assert not error, error
        count += 1
        if count % 20 == 0:
            peaks.append(worker_peak())

    return restore_on_ray(str(folder), str(out), actors=Actors(workers), progress=progress).seconds, max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    count = parser.parse_args().images
    import ray

    print(environment())
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {count} images of 384x256")
    print("| way | seconds | images per second | MiB of a process |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        picture = open_image(sample_photograph("coffee")).resize((384, 256))
        for i in range(count):
            picture.save(folder / f"{i:04}.jpg", quality=90 + i % 10)
        ways = {f"one process, {n} threads": (alone, n) for n in (1, 2)}
        ways |= {f"Ray, {n} workers": (on_ray, n) for n in (1, 2)}
        for i, (way, (run, number)) in enumerate(ways.items()):
            if run is on_ray and not ray.is_initialized():
                ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            seconds, peak = run(folder, Path(name) / f"out{i}", number)
            print(f"| {way} | {seconds:.1f} | {count / seconds:.2f} | {peak} |", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
