"""The restoration as a graph for images of any size: the network, its transport, padding and cropping."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from f2d.engine import Engine, Predictor
from f2d.nets import F2DNet
from f2d.nets.models import Network
from f2d.nets.resflow import ResFlowNet
from f2d.transport import ResFlow, Transport
from f2d.transport.interface import Predict


class Restoration(nn.Module):
    """``restored = (transport(2 image - 1) + 1) / 2``, without branches that depend on the image's size.

    network is an F2DNet, its Engine, or a ResFlowNet. Padding and cropping read pixels by index, since slices would
    need one graph for sizes that need padding and another for those that do not.
    """

    def __init__(self, network: Network | Engine, steps: int, sampler: str):
        super().__init__()
        self.network, self.config, self.steps, self.sampler = network, network.config, steps, sampler
        self.transport = network.transport  # here, since a learned schedule is computed from values of buffers
        self.begin: Any = _begin_resflow if isinstance(network, ResFlowNet) else _begin_factorized
        if isinstance(network, Engine):  # makes values that depend only on t constants of the graph
            for t in network.transport.times(steps, sampler)[:-1]:
                network.constants(t)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        start, predict = self.begin(evaluated(self.network), image * 2 - 1)
        how: dict[str, Any] = {"steps": self.steps, "sampler": self.sampler, "noise": noise}
        return (self.transport.restore(predict, start, **how) + 1) / 2


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


def random_inputs(noises: int, batch: int, height: int, width: int, device: torch.device | str) -> tuple[Tensor, ...]:
    """Draw seeded inputs for `Restoration`: an image, and noise if `noises` is not 0."""
    generator = torch.Generator().manual_seed(height * width)
    image = torch.rand(batch, 3, height, width, dtype=torch.float32, generator=generator, device="cpu")
    noise = torch.randn(noises, batch, 3, height, width, dtype=torch.float32, generator=generator, device="cpu")
    return (image.to(device), noise.to(device)) if noises else (image.to(device),)


def traced(restoration: Restoration, device: torch.device | str) -> ExportedProgram:
    """Trace the restoration as a graph for images of any size.

    It is traced for sizes above one stride. For a feature map of one pixel PyTorch would trace a graph with another
    memory layout but the same computation. The size limit, and the guards on memory that depend on it, are therefore
    removed from the graph. The tests cover the smallest sizes.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    least = restoration.config.stride + 1
    batch, height, width = Dim("batch"), Dim("height", min=least), Dim("width", min=least)
    noises = noise_count(restoration.transport, restoration.steps, restoration.sampler)
    inputs = random_inputs(noises, 2, 2 * least + 1, 3 * least + 2, device)
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


def evaluated(network: Network | Engine) -> Network | Predictor:
    """Return a network for `restore_tensor` that never skips experts, since skipping depends on the image."""
    return network.predictor(skipping=False) if isinstance(network, Engine) else network


def noise_count(transport: Transport, steps: int, sampler: str) -> int:
    """Return the number of noise tensors that a restoration takes."""
    if isinstance(transport, ResFlow):
        return int(transport.auxiliary != "none")
    return 0 if sampler == "mean" else steps
