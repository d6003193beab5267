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
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import f2d_kernels
from f2d.engine import Engine, Predictor
from f2d.export.onnx import onnx_file
from f2d.nets import F2DNet
from f2d.nets.models import Network
from f2d.nets.resflow import ResFlowNet
from f2d.replacing import replacing
from f2d.transport import LogNormal, ResFlow, Transport, sampling
from f2d.transport.interface import Predict
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
        program = _program(Restoration(network, steps, sampler), device)
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
        inputs = _inputs(_noises(net.transport, steps, sampler), *size, device)
        how: dict[str, Any] = {"steps": steps, "sampler": sampler, "noise": inputs[1] if len(inputs) > 1 else None}
        expected = (restore_tensor(_evaluated(network), inputs[0] * 2 - 1, **how) + 1) / 2
        found[size] = (run(*inputs) - expected).abs().max().item()
    return found


def _network(net: Network, path: Path, dtype: torch.dtype, device: torch.device | str) -> Network | Engine:
    """Return the source of a file: the engine for a program of an F2DNet, otherwise the network itself."""
    if path.suffix == PROGRAM and isinstance(net, F2DNet):
        return Engine(net, dtype, device)
    return copy.deepcopy(net).to(device, dtype).eval().requires_grad_(False)


def _evaluated(network: Network | Engine) -> Network | Predictor:
    """Return a network for `restore_tensor` that never skips experts, since skipping depends on the image."""
    return network.predictor(skipping=False) if isinstance(network, Engine) else network


def _noises(transport: Transport, steps: int, sampler: str) -> int:
    """Return the number of noise tensors that a restoration takes."""
    if isinstance(transport, ResFlow):
        return int(transport.auxiliary != "none")
    return 0 if sampler == "mean" else steps


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
    shape, noises = "[batch, 3, height, width]", _noises(net.transport, steps, sampler)
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


class Restoration(nn.Module):
    """``restored = (transport(2 image - 1) + 1) / 2``, without branches that depend on the image's size.

    network is an F2DNet, its Engine, or a ResFlowNet. Padding and cropping read pixels by index, since slices would
    need one graph for sizes that need padding and another for those that do not.
    """

    def __init__(self, network: Network | Engine, steps: int, sampler: str):
        super().__init__()
        self.network, self.config, self.steps, self.sampler = network, network.config, steps, sampler
        self.begin: Any = _begin_resflow if isinstance(network, ResFlowNet) else _begin_factorized
        if isinstance(network, Engine):  # makes values that depend only on t constants of the graph
            for t in network.transport.times(steps, sampler)[:-1]:
                network.constants(t)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        start, predict = self.begin(_evaluated(self.network), image * 2 - 1)
        how: dict[str, Any] = {"steps": self.steps, "sampler": self.sampler, "noise": noise}
        return (self.network.transport.restore(predict, start, **how) + 1) / 2


def _begin_factorized(net: F2DNet | Predictor, y: Tensor) -> tuple[Tensor, Predict]:
    """Do the work of `f2d.nets.f2dnet.network.begin` with `padded` and `cropped`."""
    (height, width), stride = y.shape[-2:], net.config.stride
    analysis: Any = net.analyse(padded(y, stride))

    def predict(x: Tensor, auxiliary: Tensor | None, t: Any) -> Tensor:
        # without an enhancer the first state is the image itself, which the engine handles faster
        first = t == 0 and analysis.enhancer_gate is None
        v = net.velocity(analysis.enhanced if first else padded(x, stride), analysis, t).prediction
        return cropped(v, height, width)

    return cropped(analysis.enhanced, height, width), predict


def _begin_resflow(net: ResFlowNet, y: Tensor) -> tuple[Tensor, Predict]:
    """Do the work of `ResFlowNet.begin` with `padded` and `cropped`."""
    (height, width), stride = y.shape[-2:], net.config.stride
    start, predict = net.begin(y)

    def predict_padded(x: Tensor, auxiliary: Tensor | None, t: float) -> Tensor:
        auxiliary = None if auxiliary is None else padded(auxiliary, stride)
        return cropped(predict(padded(x, stride), auxiliary, t), height, width)

    return start, predict_padded


def padded(x: Tensor, multiple: int) -> Tensor:
    """Do the work of `f2d.nets.padding.pad_to_multiple` without Python branches."""
    for axis in (3, 2):
        size = x.shape[axis]
        place = torch.arange((size + multiple - 1) // multiple * multiple, device=x.device)
        mirrored = (size - 1) - (place - (size - 1)).abs()  # negative where the axis is too short to reflect
        x = x.index_select(axis, torch.where(mirrored[-1] >= 0, mirrored, place.clamp(max=size - 1)))
    return x


def cropped(x: Tensor, height: int, width: int) -> Tensor:
    """``x[..., :height, :width]``."""
    rows, columns = (torch.arange(size, device=x.device) for size in (height, width))
    return x.index_select(3, columns).index_select(2, rows)


def _inputs(noises: int, batch: int, height: int, width: int, device: torch.device | str) -> tuple[Tensor, ...]:
    """Draw seeded inputs for `Restoration`: an image, and noise if `noises` is not 0."""
    generator = torch.Generator().manual_seed(height * width)
    image = torch.rand(batch, 3, height, width, dtype=torch.float32, generator=generator)
    noise = torch.randn(noises, batch, 3, height, width, dtype=torch.float32, generator=generator)
    return (image.to(device), noise.to(device)) if noises else (image.to(device),)


def _program(restoration: Restoration, device: torch.device | str) -> ExportedProgram:
    """Trace the restoration as a graph for images of any size.

    It is traced for sizes above one stride. For a feature map of one pixel PyTorch would trace a graph with another
    memory layout but the same computation. The size limit, and the guards on memory that depend
    on it, are therefore removed from the graph. The tests cover the smallest sizes.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    least = restoration.config.stride + 1
    batch, height, width = Dim("batch"), Dim("height", min=least), Dim("width", min=least)
    noises = _noises(restoration.network.transport, restoration.steps, restoration.sampler)
    inputs = _inputs(noises, 2, 2 * least + 1, 3 * least + 2, device)
    shapes = ({0: batch, 2: height, 3: width}, {1: batch, 3: height, 4: width})[: len(inputs)]
    program = torch.export.export(
        restoration,
        inputs,
        dynamic_shapes=shapes,
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for symbol, found in program.range_constraints.items():
        program.range_constraints[symbol] = ValueRanges(1, found.upper)
    return program
