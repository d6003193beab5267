"""A network as one file for other programs: ONNX, or PyTorch's own exported program.

export(F2DNet.from_pretrained("f2d-lite"), "lite.onnx")   # image [B, 3, H, W] in [0, 1] -> the same, restored
description("lite.onnx")                                  # what the file says of itself
differences("lite.onnx", net)                             # from PyTorch's results, at several sizes
"""

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import f2d_kernels
from f2d.engine import Engine
from f2d.nets import F2DNet
from f2d.replacing import replacing
from f2d.restore import restore_tensor

ONNX, PROGRAM = ".onnx", ".pt2"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
DESCRIPTION = "f2d.json"  # the file of a .pt2 archive that says what is in it
SIZES = ((1, 1, 1), (2, 45, 70), (1, 128, 96), (3, 17, 30))  # (B, H, W) that `differences` looks at


def export(
    net: F2DNet,
    path: str | os.PathLike,
    *,
    steps: int = 1,
    sampler: str = "mean",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> None:
    """Write ``restored = restoration(image[, noise])`` of `net` to a file that appears whole or not at all.

        image     float32 [B, 3, H, W], RGB in [0, 1], any B, H, W >= 1: padding and cropping are in the graph
        noise     float32 [steps, B, 3, H, W], standard normal; no input where the sampler is "mean"
        restored  as image

    name.onnx: the plain network in standard operators, float32, for any runtime. name.pt2: the engine
    (`f2d.engine.Engine`: folded, in `dtype`, with our kernels) on `device`, for ``torch.export.load(path).module()`` in
    a program that has imported f2d_kernels. steps, sampler: as in `f2d.transport.transport`, the steps unrolled.

    ValueError for another suffix, a sampler, number of steps or type that cannot be, and ModuleNotFoundError where
    what writes ONNX is not installed, before any work.
    """
    path = Path(path)
    check_name(path)
    net.transport.times(steps, sampler)
    if path.suffix == ONNX and (dtype != torch.float32 or torch.device(device).type != "cpu"):
        raise ValueError(f"{path}: ONNX is written in float32 and for any device; leave dtype and device out")
    text = _describe(net, steps, sampler, dtype, device)
    if path.suffix == PROGRAM:
        network = Engine(net, dtype, device)
    else:
        network = copy.deepcopy(net).to(device, dtype).eval().requires_grad_(False)
    with _quietly(), torch.no_grad(), replacing(path) as part:
        program = _program(Restoration(network, steps, sampler), device)
        if path.suffix == PROGRAM:
            with part.open("wb") as file:
                torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(text)})
        else:
            part.write_bytes(_onnx(program, text))


def check_name(path: Path) -> None:
    """ValueError for a name that says neither format; ModuleNotFoundError where what writes ONNX is not installed."""
    if path.suffix not in (ONNX, PROGRAM):
        raise ValueError(f"{path}: the name says the format; give one that ends in {ONNX} or {PROGRAM}")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if path.suffix == ONNX and missing:
        raise ModuleNotFoundError(
            f'{path} needs {", ".join(missing)}, not installed here: pip install "f2d[export]"', name=missing[0]
        )


def description(path: str | os.PathLike) -> dict[str, str]:
    """What an exported file says of itself: f2d (version), config (JSON), factors, steps, sampler, precision, device,
    image, noise (where it is an input), restored."""
    path = Path(path)
    check_name(path)
    if path.suffix == PROGRAM:
        from torch.export.pt2_archive import PT2ArchiveReader

        with path.open("rb") as file:
            return json.loads(PT2ArchiveReader(file).read_string(f"extra/{DESCRIPTION}"))
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def differences(
    path: str | os.PathLike, net: F2DNet, sizes: tuple[tuple[int, int, int], ...] = SIZES
) -> dict[tuple[int, int, int], float]:
    """(B, H, W) -> largest ``|file(image) - restore_tensor(net)(image)|`` over random values in [0, 1].

    A .onnx file runs in onnxruntime and is compared with the plain network; a .pt2 file with the engine it was made of.
    """
    path = Path(path)
    text = description(path)
    steps, sampler, device = int(text["steps"]), text["sampler"], text["device"]
    with _quietly():
        run = _program_runner(path) if path.suffix == PROGRAM else _onnx_runner(path)
    if path.suffix == PROGRAM:
        engine = Engine(net, getattr(torch, text["precision"]), device)
    found = {}
    for size in sizes:
        inputs = _inputs(steps, sampler, *size, device)
        how = {"steps": steps, "sampler": sampler, "noise": inputs[1] if len(inputs) > 1 else None}
        same = engine.predictor(skipping=False) if path.suffix == PROGRAM else net
        expected = (restore_tensor(same, inputs[0] * 2 - 1, **how) + 1) / 2
        found[size] = (run(*inputs) - expected).abs().max().item()
    return found


def _program_runner(path: Path) -> Callable[..., Tensor]:
    return torch.no_grad()(torch.export.load(path).module())


def _onnx_runner(path: Path) -> Callable[..., Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: torch.from_numpy(
        session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})[0]
    )


def _describe(net: F2DNet, steps: int, sampler: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, str]:
    shape = "[batch, 3, height, width]"
    found = {
        "f2d": f2d_kernels.__version__,
        "config": json.dumps(net.config.to_dict()),
        "factors": ",".join(net.config.factors),
        "steps": str(steps),
        "sampler": sampler,
        "precision": str(dtype).removeprefix("torch."),
        "device": str(device),
        "image": f"float32 {shape}, RGB in [0, 1], any batch, height, width >= 1",
        "noise": f"float32 [{steps}, batch, 3, height, width], standard normal",
        "restored": f"float32 {shape}, RGB in [0, 1]",
    }
    if sampler == "mean":
        del found["noise"]
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """PyTorch's exporters speak of their own deprecations, and of packages that nobody asked for."""
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
    """``restored = (transport(2 image - 1) + 1) / 2``, without a choice that depends on the image's size.

    network: an F2DNet, or an Engine. Padding and cropping read pixels by number, as slices would have one graph for
    sizes that need padding and another for those that do not.
    """

    def __init__(self, network: F2DNet | Engine, steps: int = 1, sampler: str = "mean"):
        super().__init__()
        self.network, self.config, self.steps, self.sampler = network, network.config, steps, sampler
        if isinstance(network, Engine):  # what depends on t alone is a constant of the graph
            for t in network.transport.times(steps, sampler)[:-1]:
                network.constants(t)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        height, width = image.shape[-2:]
        stride = self.config.stride
        net = self.network.predictor(skipping=False) if isinstance(self.network, Engine) else self.network
        analysis = net.analyse(padded(image * 2 - 1, stride))
        start = cropped(analysis.enhanced, height, width)

        def predict(x: Tensor, auxiliary: None, t: int) -> Tensor:
            # without an enhancer the first state is the image itself, which the engine has a shorter way for
            first = t == 0 and analysis.enhancer_gate is None
            v = net.velocity(analysis.enhanced if first else padded(x, stride), analysis, t).prediction
            return cropped(v, height, width)

        how = {"steps": self.steps, "sampler": self.sampler, "noise": noise}
        return (net.transport.restore(predict, start, **how) + 1) / 2


def padded(x: Tensor, multiple: int) -> Tensor:
    """`f2d.nets.padding.pad_to_multiple` without a choice in Python."""
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


def _inputs(steps: int, sampler: str, batch: int, height: int, width: int, device: object) -> tuple[Tensor, ...]:
    """Seeded values for `Restoration`."""
    generator = torch.Generator().manual_seed(height * width)
    image = torch.rand(batch, 3, height, width, generator=generator)
    noise = torch.randn(steps, batch, 3, height, width, generator=generator)
    return (image.to(device),) if sampler == "mean" else (image.to(device), noise.to(device))


def _program(restoration: Restoration, device: torch.device | str) -> ExportedProgram:
    """The restoration as a graph for images of any size.

    It is traced for sizes beyond one stride. At a feature map of one pixel PyTorch would make other graphs, that differ
    in how memory is described and not in what is computed; so the limit, and the questions about memory that were
    answered under it, are taken out of the graph. The smallest sizes are in the tests.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    least = restoration.config.stride + 1
    batch, height, width = Dim("batch"), Dim("height", min=least), Dim("width", min=least)
    inputs = _inputs(restoration.steps, restoration.sampler, 2, 2 * least + 1, 3 * least + 2, device)
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


def _assembly(deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> Tensor:
    """`f2d_kernels.expert_assembly` in standard operators."""
    total = base
    for k, delta in enumerate(deltas):
        weight = gates[:, k, None, None, None]
        term = (weight if maps is None else weight * maps[:, k, None]) * delta
        total = term if total is None else total + term
    return total


def _group_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    *_: object,
) -> tuple[Tensor, ...]:
    """`f2d_kernels.group_norm_silu` in standard operators; nothing reads the other three results of the op."""
    h = nn.functional.group_norm(x, groups, weight, bias, eps)
    if scale is not None:
        h = h * (1 + scale[:, :, None, None])
    if shift is not None:
        h = h + shift[:, :, None, None]
    return (nn.functional.silu(h),) * 4


def _transition(x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, noise: Tensor, *_: object) -> Tensor:
    """`f2d_kernels.lognormal_transition` with noise given, in standard operators."""
    exponent = log_mean[:, None, None, None] + log_std[:, None, None, None] * noise
    return mu + (x - mu) * exponent.clamp(-20, 20).exp()


def _onnx(program: ExportedProgram, description: dict[str, str]) -> bytes:
    """The program as an ONNX file."""
    import onnx

    ops = torch.ops.f2d_kernels
    plain = {
        ops.expert_assembly.default: _assembly,
        ops.group_norm_silu.default: _group_norm_silu,
        ops.lognormal_transition.default: _transition,
    }
    names = ["image", "noise"][: len(program.graph_signature.user_inputs)]
    written = torch.onnx.export(
        program.run_decompositions(plain), input_names=names, output_names=["restored"], verbose=False, dynamo=True
    )
    model = written.model_proto
    del model.graph.value_info[:]  # shapes of intermediate results, which runtimes find themselves
    for value in (*model.graph.input, *model.graph.output):
        dims = [dim for dim in value.type.tensor_type.shape.dim if dim.dim_param]
        for dim, name in zip(dims, ("batch", "height", "width"), strict=True):
            dim.dim_param = name
    onnx.helper.set_model_props(model, description)
    onnx.checker.check_model(model)
    return model.SerializeToString()
