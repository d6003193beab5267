"""Export a network to one file for other programs: ONNX, or a PyTorch exported program.

export(F2DNet.from_pretrained("f2d-lite"), "lite.onnx")   # image [B, 3, H, W] in [0, 1] -> the same, restored
description("lite.onnx")                                  # the description stored in the file
differences("lite.onnx", net)                             # the differences from PyTorch's results, at several sizes
"""

import copy
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import f2d_kernels
from f2d.engine import Engine
from f2d.export.graph import Restoration, evaluated, noise_count, random_inputs, traced
from f2d.export.onnx import onnx_file
from f2d.nets import F2DNet
from f2d.nets.models import Network
from f2d.replacing import replacing
from f2d.transport import LogNormal, sampling
from f2d.transport.restore import restore_tensor
from f2d.transport.samplers import warn_if_short

ONNX, PROGRAM = ".onnx", ".pt2"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
DESCRIPTION = "f2d.json"  # the file of a .pt2 archive that describes its content
SIZES = ((1, 1, 1), (2, 45, 70), (1, 128, 96), (3, 17, 30))  # (B, H, W) that `differences` compares


def export(
    net: Network,
    path: str | os.PathLike,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Write ``restored = restoration(image[, noise])`` of `net` to a file, completely or not at all.

        image     float32 [B, 3, H, W], RGB in [0, 1], any B, H, W >= 1; the graph pads and crops
        noise     float32 [steps, B, 3, H, W], standard normal (ResFlow: y_1 [1, B, 3, H, W]); absent if none is drawn
        restored  like image

    A .onnx file holds the plain network in standard operators, float32, for any runtime. A .pt2 file holds the engine
    (`f2d.engine.Engine`: folded, in `dtype`, with f2d's kernels; a ResFlowNet unchanged, in `dtype`) on `device`, for
    ``torch.export.load(path).module()`` in a program that has imported f2d_kernels. steps and sampler are those of
    `f2d.transport.sampling`, with the steps unrolled; the default is "mean" if available, which needs no noise.

    Raises, before any work, ValueError for another suffix or an invalid sampler, number of steps, dtype or device, and
    ModuleNotFoundError if a package that writes ONNX is not installed.
    """
    path = Path(path)
    check_name(path)
    if sampler is None and "mean" in net.transport.samplers:
        sampler = "mean"
    steps, sampler = sampling(net.transport, steps, sampler)
    if path.suffix == ONNX and (dtype != torch.float32 or torch.device(device).type != "cpu"):
        raise ValueError(f"{path}: dtype and device must be omitted, as ONNX files are float32 for any device")
    if isinstance(net.transport, LogNormal):
        warn_if_short(net.transport.schedule, steps, sampler)
    text = _describe(net, steps, sampler, dtype, device)
    network = _network(net, path, dtype, device)
    with _quietly(), torch.no_grad(), replacing(path, alone=True) as part:
        program = traced(Restoration(network, steps, sampler), device)
        if path.suffix == PROGRAM:
            file = io.BytesIO()  # on a full disk, PyTorch raises an error about its own format
            torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(text)})
            part.write_bytes(file.getbuffer())
        else:
            part.write_bytes(onnx_file(program, text))


def check_name(path: Path) -> None:
    """Raise ValueError for a suffix of neither format, ModuleNotFoundError if a package for ONNX is not installed."""
    if path.suffix not in (ONNX, PROGRAM):
        raise ValueError(f"{path}: must end in {ONNX} or {PROGRAM}")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if path.suffix == ONNX and missing:
        raise ModuleNotFoundError(
            f'{path} needs {", ".join(missing)}, which is not installed: pip install "f2d[export]"', name=missing[0]
        )


def description(path: str | os.PathLike) -> dict[str, str]:
    """Read the description stored in an exported file.

    Its entries are f2d (version), config (JSON), factors (if there are any), steps, sampler, precision, device, image,
    noise (if it is an input) and restored.
    """
    path = Path(path)
    check_name(path)
    if path.suffix == PROGRAM:
        from torch.export.pt2_archive import PT2ArchiveReader

        with path.open("rb") as file:
            return json.loads(PT2ArchiveReader(file).read_string(f"extra/{DESCRIPTION}"))
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def differences(
    path: str | os.PathLike, net: Network, sizes: tuple[tuple[int, int, int], ...] = SIZES
) -> dict[tuple[int, int, int], float]:
    """Map (B, H, W) to the largest ``|file(image) - restore_tensor(net)(image)|`` over random values in [0, 1].

    A .onnx file runs in onnxruntime and is compared with the plain network; a .pt2 file is compared with its source.
    """
    path = Path(path)
    text = description(path)
    steps, sampler, device = int(text["steps"]), text["sampler"], text["device"]
    with _quietly():
        run = _program_runner(path) if path.suffix == PROGRAM else _onnx_runner(path)
    network = _network(net, path, getattr(torch, text["precision"]), device)
    found = {}
    for size in sizes:
        inputs = random_inputs(noise_count(net.transport, steps, sampler), *size, device)
        how: dict[str, Any] = {"steps": steps, "sampler": sampler, "noise": inputs[1] if len(inputs) > 1 else None}
        expected = (restore_tensor(evaluated(network), inputs[0] * 2 - 1, **how) + 1) / 2
        found[size] = (run(*inputs) - expected).abs().max().item()
    return found


def _network(net: Network, path: Path, dtype: torch.dtype, device: torch.device | str) -> Network | Engine:
    """Return the source of a file: the engine for a program of an F2DNet, otherwise the network itself."""
    if path.suffix == PROGRAM and isinstance(net, F2DNet):
        return Engine(net, dtype, device)
    return copy.deepcopy(net).to(device, dtype).eval().requires_grad_(False)


def _program_runner(path: Path) -> Callable[..., Tensor]:
    return torch.no_grad()(torch.export.load(path).module())


def _onnx_runner(path: Path) -> Callable[..., Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: torch.from_numpy(
        session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})[0]
    )


def _describe(net: Network, steps: int, sampler: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, str]:
    shape, noises = "[batch, 3, height, width]", noise_count(net.transport, steps, sampler)
    law = getattr(net.transport, "distribution", "gaussian")  # of ResFlow's y_1, which the noise is
    law = "standard normal" if law == "gaussian" else f"of distribution {law} with mean 0 and variance 1"
    found = {
        "f2d": f2d_kernels.__version__,
        "config": json.dumps(net.config.to_dict()),
        "factors": ",".join(net.config.factors),
        "steps": str(steps),
        "sampler": sampler,
        "precision": str(dtype).removeprefix("torch."),
        "device": str(device),
        "image": f"float32 {shape}, RGB in [0, 1], any batch, height, width >= 1",
        "noise": f"float32 [{noises}, batch, 3, height, width], {law}",
        "restored": f"float32 {shape}, RGB in [0, 1]",
    }
    absent = [name for name, there in (("factors", net.config.factors), ("noise", noises)) if not there]
    return {name: value for name, value in found.items() if name not in absent}


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence PyTorch's exporters, which warn about their own deprecations and optional packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
