"""`python -m bench.video`: what restoring a video keeps, its memory at two lengths, interruption, and flicker.

The clips are pans over the demo's coffee in haze and rain, whose drops are new in every frame. For each kind
(constant and variable rate, rotated, 10 bits) the streams are listed before and after `f2d restore`. Memory is the
process's peak resident memory. One run is interrupted by Ctrl-C after its first segment and started again, which needs
more than 120 frames, and one gets half a file. With --flicker only the flicker is measured, whose table is that of
docs/performance.md. Flicker is the mean absolute difference of consecutive frames in grey levels, shifted
by the pan, so that it is zero where a clean scene stands still: per pixel, and of the mean over all pixels.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from bench.environment import environment
from f2d.degradation import degrade
from f2d.demo import sample_photograph
from f2d.engine.restorer import Restorer
from f2d.images import open_image, to_tensor
from f2d.video.smoothing import Smoother

STEP, SIZE = 2, (192, 128)  # pixels a frame; width and height
RAIN = {"angle": 0.3, "veil": 0.06, "contrast": 0.5, "streaks": 0.3, "density": 0.003, "length": 14.0}
KINDS = {
    "constant rate": {},
    "variable rate": {"variable": True},
    "rotated": {"rotated": True},
    "10 bits": {"deep": True},
}
RESTORE = (
    "import signal, sys; from f2d.cli.commands import app; from f2d.evaluation.memory import peak_memory\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell in the background has it ignored
    "try: app(sys.argv[1:])\n"
    "finally: print(peak_memory() >> 20)\n"
)


def scene(count: int, width: int, height: int, *, step: int = STEP, exposure: float = 0.0) -> Iterator[Tensor]:
    """Yield frames [1, 3, height, width] in [0, 1]; exposure: amplitude of a flicker of the light."""
    wide = open_image(sample_photograph("coffee")).resize((width + step * count, height))
    hazy = degrade(to_tensor(wide), "haze", seed=1).image
    for i in range(count):
        frame = hazy[..., i * step : i * step + width] * (1 - exposure * (i % 2))
        yield degrade(frame, "rain", seed=i, parameters={"rain": RAIN}).image[None]


def write_clip(path: Path, count: int, *, variable: bool = False, rotated: bool = False, deep: bool = False) -> None:
    """Write 192x128 at 25 frames a second with a tone, and chapters of one second."""
    form, base = ("yuv420p10le" if deep else "yuv420p"), Fraction(1, 12800)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx265" if deep else "libx264", rate=25)
        video.width, video.height, video.pix_fmt, video.codec_context.time_base = *SIZE, form, base
        video.codec_context.options = {"crf": "10"} | ({"x265-params": "log-level=none"} if deep else {})
        sound = out.add_stream("aac", rate=48000, layout="mono")
        spans = [(1000 * i, 1000 * i + 1000) for i in range(count // 25)]
        out.set_chapters(
            [
                {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": f"second {i}"}}
                for i, (a, b) in enumerate(spans)
            ]
        )
        for i, image in enumerate(scene(count, *SIZE)):
            pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=form)
            frame.pts, frame.time_base = 512 * i + (200 * (i % 3) if variable else 0), base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for i in range(count * 48000 // 25 // 1024):
            tone = 0.1 * np.sin(2 * np.pi * 440 * (np.arange(1024) + 1024 * i) / 48000)
            block = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 48000, 1024 * i, Fraction(1, 48000)
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    if rotated:
        data = bytearray(path.read_bytes())
        place = data.index(b"tkhd") + 44
        matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
        path.write_bytes(data)


def listing(path: Path) -> list[str]:
    """Return one line for each stream and one for the file, in the manner of ffprobe."""
    lines = []
    with av.open(str(path)) as container:
        for stream in container.streams:
            if stream.type == "video":
                frame = next(container.decode(stream))
                times = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
                lines.append(
                    f"video {stream.codec.name} {frame.format.name} {frame.width}x{frame.height} "
                    f"rotated {frame.rotation} range {int(frame.color_range)} matrix {int(frame.colorspace)} "
                    f"time base {stream.time_base} "
                    f"frames {stream.frames} start {stream.start_time} duration {stream.duration} last {max(times)}"
                )
            elif stream.type == "audio":
                lines.append(f"audio {stream.codec.name} {stream.rate} Hz start {stream.start_time} {stream.duration}")
        lines.append(f"file {container.duration / av.time_base:.3f} s, {len(container.chapters())} chapters")
    return lines


def command_of(source: Path, target: Path, *options: str) -> list[str]:
    """Return the command line of `f2d restore` in a process that prints its peak resident memory at the end."""
    return [sys.executable, "-c", RESTORE, "restore", str(source), "-o", str(target), *options]


def restore(source: Path, target: Path, *options: str) -> tuple[str, int]:
    """Run `f2d restore` in its own process; return its line, and its peak resident memory in MiB."""
    command = command_of(source, target, *options)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if str(target) in line)
    return line.removeprefix(str(target)).strip(), int(done.stdout.splitlines()[-1])


def interrupt(source: Path, target: Path) -> list[str]:
    """Interrupt a restoration after its first segment and start it again; return its output."""
    restore(source, target, "--overwrite")
    whole = target.read_bytes()
    target.unlink()
    with subprocess.Popen(command_of(source, target), stdout=subprocess.PIPE, text=True) as process:
        while not list(target.parent.glob(".f2d-*.segments/0.json")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    lines = [line for line in said.replace(f"{target.parent}/", "").splitlines() if "frame" in line]
    lines += [f"exit code {process.returncode}, output there: {target.exists()}", restore(source, target)[0]]
    same = "the same bytes as" if target.read_bytes() == whole else "OTHER BYTES THAN"
    return [*lines, f"{same} the uninterrupted run; left behind: {len(list(target.parent.glob('.f2d-*')))}"]


def truncate(source: Path, target: Path) -> list[str]:
    """Restore half a file, and half of one whose index comes first; return the output."""
    lines = []
    for flags in ({}, {"movflags": "faststart"}):
        half = source.with_name("half.mp4")
        with av.open(str(source)) as given, av.open(str(half), "w", options=flags) as out:
            wanted = [*given.streams.video, *given.streams.audio]
            streams = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in wanted}
            for packet in given.demux(wanted):
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
        half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
        done = subprocess.run(command_of(half, target, "--overwrite"), capture_output=True, text=True)
        said = (done.stderr + done.stdout).replace(f"{target.parent}/", "").splitlines()
        lines += [line for line in said if "half" in line or "frames" in line] + [f"exit code {done.returncode}"]
    return lines


def flicker(frames: list[Tensor], step: int) -> tuple[float, float]:
    """Return the mean absolute difference of consecutive frames along the pan, and that of their means, in levels."""
    pixels, means = [], []
    for before, after in itertools.pairwise(frames):
        change = 255 * (after[..., : after.shape[-1] - step] - before[..., step:])
        pixels.append(float(change.abs().mean()))
        means.append(float(change.mean().abs()))
    return sum(pixels) / len(pixels), sum(means) / len(means)


def flickers(restorer: Restorer, count: int, width: int, height: int, *, step: int, exposure: float) -> str:
    """Return the cells of a row: input, restored without and with smoothing, first per pixel, then of the mean."""
    given = list(scene(count, width, height, step=step, exposure=exposure))
    found = [flicker(given, step)]
    for seconds in (0.0, 0.5):
        smoother, restored = Smoother(seconds) if seconds else None, []
        for i, frame in enumerate(given):
            if smoother is None:
                restored.append(restorer(frame, adjust=None).image.clamp(0, 1))
            else:
                restored.append(frame + smoother.change(restorer, frame, i / 25)[0])
        found.append(flicker(restored, step))
    return " | ".join(f"{value:.2f}" for column in zip(*found) for value in column)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs=2, default=(30, 300), help="lengths of which memory is compared")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 128), help="width and height for the flicker")
    parser.add_argument("--flicker", action="store_true", help="measure only the flicker")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of `f2d restore`
    print(environment())
    if not options.flicker:
        measure_files(options.frames)
    print(
        "\n| | input, pixel | without smoothing | `--smooth 0.5` | input, mean | without smoothing | `--smooth 0.5` |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    restorer = Restorer.load("f2d-lite", device="cpu")
    for what, step, exposure in (
        ("still camera", 0, 0.0),
        (f"pan of {STEP} pixels per frame", STEP, 0.0),
        ("pan, light flickers by 4 %", STEP, 0.04),
    ):
        print(f"| {what} | {flickers(restorer, 30, *options.size, step=step, exposure=exposure)} |", flush=True)


def measure_files(frames: tuple[int, int]) -> None:
    """Print what restorations of files keep, their memory, and how they end when they are disturbed."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "drive.mp4", Path(folder) / "clear.mp4"
        for name, kind in KINDS.items():
            write_clip(source, frames[1], **kind)
            line, _ = restore(source, target, "--overwrite")
            print(f"\n{name}: {line}")
            for before, after in zip(listing(source), listing(target)):
                print(f"  {before}\n" if before == after else f"  {before}\n  -> {after}\n", end="")
        print("\n| frames | seconds and frames a second | peak MiB |\n|---:|---|---:|")
        for count in frames:
            write_clip(source, count)
            line, peak = restore(source, target, "--overwrite")
            print(f"| {count} | {line} | {peak} |")
        print("\ninterrupted and started again:", *interrupt(source, target), sep="\n  ")
        print("\ntruncated, with the index at the end and at the beginning:", *truncate(source, target), sep="\n  ")


if __name__ == "__main__":
    main()
