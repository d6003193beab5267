"""Restore damaged photographs of every format that is read: one line each, no crash, no hang, bounded memory.

    python -m tests.mutants FOLDER --count 2000

Bytes are changed at random, most of them in the headers; parts are cut off, zeroed, repeated or moved.
"""

import argparse
import io
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
import tifffile
import torch
from PIL import Image

from f2d.images import Photo, write
from f2d.nets import F2DNet
from tests.cli.conftest import smooth_pixels
from tests.nets.small import TINY

RGB = smooth_pixels(24, 32)
DEEP = RGB.astype(np.uint16) * 257
PATIENCE = 3600  # seconds for the whole folder


def originals(folder: Path) -> list[Path]:
    """Every format that is read, in several modes, with metadata where Pillow writes it."""
    folder.mkdir()
    picture, exif = Image.fromarray(RGB), Image.Exif()
    exif[271], exif[274] = "Camera", 6
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        picture.save(folder / f"rgb{suffix}", exif=exif, dpi=(300, 300), xmp=b"<x:xmpmeta/>")
    for suffix in (".bmp", ".gif", ".jp2", ".j2k", ".ppm"):
        picture.save(folder / f"rgb{suffix}")
    for suffix in (".png", ".tif", ".jpg", ".jp2", ".bmp", ".pgm"):
        picture.convert("L").save(folder / f"grey{suffix}")
    for suffix in (".png", ".webp", ".tif", ".jp2", ".avif"):
        picture.convert("RGBA").save(folder / f"rgba{suffix}")
    for suffix in (".gif", ".png", ".webp", ".tif", ".mpo"):
        several = {"save_all": True, "append_images": [picture.rotate(180)] * 2}
        if suffix != ".tif":  # of which Pillow here writes no second page
            picture.save(folder / f"several{suffix}", **several)
    picture.quantize(16).save(folder / "palette.png", transparency=3)
    picture.convert("1").save(folder / "two.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.save(folder / "jpeg.tif", compression="jpeg")
    picture.save(folder / "lzw.tif", compression="tiff_lzw")
    for kind, pixels in (("16", DEEP), ("grey16", DEEP[..., :1])):
        for suffix in (".png", ".tif"):
            write(Photo(pixels), folder / f"{kind}{suffix}")
    for kind, options in {
        "float": {"data": (RGB / 255).astype(np.float32)},
        "tiles": {"data": DEEP, "tile": (16, 16), "compression": "zlib"},
        "planes": {"data": DEEP.transpose(2, 0, 1), "planarconfig": "separate"},
        "big": {"data": RGB, "bigtiff": True},
    }.items():
        tifffile.imwrite(folder / f"{kind}.tif", photometric="rgb", **options)
    (folder / "deep.ppm").write_bytes(b"P6 32 24 65535\n" + DEEP.astype(">u2").tobytes())
    (folder / "text.ppm").write_text("P3 32 24 255\n" + " ".join(map(str, RGB.ravel())))
    (folder / "grey.pfm").write_bytes(b"Pf\n32 24\n-1.0\n" + (RGB[..., 0] / 255).astype("<f4").tobytes())
    pillow_heif.from_pillow(picture).save(folder / "rgb.heic", exif=exif.tobytes())
    pillow_heif.from_bytes("RGB;16", (32, 24), DEEP.tobytes()).save(folder / "deep.heic")
    return sorted(folder.iterdir())


def mutated(data: bytes, draws: np.random.Generator) -> bytes:
    """One to three kinds of damage."""
    changed = bytearray(data)
    for _ in range(draws.integers(1, 4)):
        start, length = int(draws.integers(len(changed))), int(draws.integers(1, 64))
        match draws.choice(6, p=(0.6, 0.1, 0.1, 0.1, 0.05, 0.05)):
            case 0:
                for _ in range(draws.integers(1, 6)):
                    most = min(len(changed), 400) if draws.random() < 0.7 else len(changed)
                    changed[draws.integers(most)] = draws.integers(256)
            case 1:
                del changed[max(1, start) :]
            case 2:
                changed[start : start + length] = bytes(length)
            case 3:
                changed[start:start] = changed[start : start + length]
            case 4:
                del changed[start : start + length]
            case 5:
                changed[start : start + 4] = b"\xff\xff\xff\xff"
        changed = changed or bytearray(1)
    return bytes(changed)


def lines_of(output: bytes, errors: bytes, out: Path, photos: Path) -> Iterator[tuple[str, str]]:
    """(name of a file, what happened to it) for every line about one."""
    for line in io.StringIO(output.decode() + errors.decode()):
        for said, pattern in (
            ("restored", re.escape(f"{out}/") + r"(\d{5}\.\w+?)(?:\.png)?  "),
            ("refused", "error: " + re.escape(f"{photos}/") + r"(\d{5}\.\w+): "),
            ("not written", "error: " + re.escape(f"{out}/") + r"(\d{5}\.\w+?)(?:\.png)?: "),
        ):
            if found := re.match(pattern, line):
                yield found[1], said


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="A new folder, whose files stay if something is wrong.")
    parser.add_argument("--count", type=int, default=2000)
    asked = parser.parse_args()
    folder, draws = asked.folder.resolve(), np.random.default_rng(0)
    photos, out = folder / "photos", folder / "out"
    photos.mkdir(parents=True)
    torch.manual_seed(0)
    F2DNet(TINY).save_pretrained(folder / "model")
    kinds = originals(folder / "originals")
    for i in range(asked.count):
        source = kinds[i % len(kinds)]
        (photos / f"{i:05}{source.suffix}").write_bytes(mutated(source.read_bytes(), draws))
    command = [sys.executable, "-m", "f2d", "restore", photos, "-o", out, "--model", folder / "model"]
    start = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--device", "cpu", "--max-memory", "3G"], capture_output=True, env=environment, timeout=PATIENCE
    )
    seconds, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    (folder / "stdout").write_bytes(done.stdout)
    (folder / "stderr").write_bytes(done.stderr)
    assert done.returncode in (0, 1), (done.returncode, done.stderr[-2000:])
    lines = list(lines_of(done.stdout, done.stderr, out, photos))
    assert sorted(name for name, _ in lines) == sorted(path.name for path in photos.iterdir()), "not one line each"
    others = len(done.stdout.splitlines()) + len(done.stderr.splitlines()) - len(lines)
    assert others == 2, f"{others} lines that are about no file: {folder}"  # the model, and the sum
    whole = sum(said == "restored" for _, said in lines)
    assert len(list(out.iterdir())) == whole, "files without a line, or half-written ones"
    told = ", ".join(f"{number} {said}" for said, number in Counter(said for _, said in lines).items())
    formats = len({path.suffix for path in kinds})
    print(
        f"{asked.count} mutated files of {len(kinds)} kinds in {formats} formats: {told}; one line each; "
        f"peak memory {peak:.2f} GiB, {seconds:.0f} s"
    )


if __name__ == "__main__":
    run()
