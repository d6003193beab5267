"""The inference engine: an F2DNet with weights prepared for the fastest equivalent arithmetic."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from f2d.nets import F2DNet
from f2d.nets.f2dnet.network import begin
from f2d.nets.padding import pad_to_multiple

from .analysis import FastEnhancer, FastLightParser, FastParser, ImageAnalysis
from .backbone import Constants, FastBackbone
from .control import Adjust, adjusted, scaled, strengths
from .experts import FastExperts
from .layers import wide_copy, without_autocast
from .plan import Plan, plan
from .skipping import experts_to_run


class Prediction(NamedTuple):
    """One evaluation: v [B, 3, H, W] and gates alpha [B, K] (without strengths), both float32, and the experts run."""

    prediction: Tensor
    gates: Tensor
    ran: tuple[int, ...]


class Engine(nn.Module):
    """``v(x_t, y, t)`` of an F2DNet in eval mode, with the same weights; `predictor()` provides analyse and velocity.

    dtype is the type of convolutions and feature maps (bfloat16 or float32; float64 for comparison). Images,
    normalisation statistics, gates, maps, attention matrices and the sum over the experts are always float32 (or
    float64). The network's weights are copied, folded (see `folding`) and stored as channels_last on `device`; values
    that depend on t only are computed once per t. An engine is read-only: any number of threads may share it.
    """

    def __init__(self, net: F2DNet, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None):
        super().__init__()
        self.config, self.transport, self.dtype = net.config, net.transport, dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        if net.dtype != self.wide:
            net = copy.deepcopy(net).to(self.wide)
        self.enhancer = None if net.enhancer is None else FastEnhancer(net.enhancer, dtype)
        parser: Any = FastLightParser if net.config.design == "light" else FastParser
        self.parser, self.backbone = parser(net.parser, dtype), FastBackbone(net.backbone, dtype)
        self.experts, self.gate = FastExperts(net.experts, dtype), wide_copy(net.gate)
        self._constants: dict[int, Constants] = {}
        self.requires_grad_(False).eval()
        if device is not None:
            self.to(device)

    @property
    def device(self) -> torch.device:
        return self.experts.weight.device

    def predictor(
        self,
        *,
        strength: Mapping[str, float] | None = None,
        only: Iterable[str] | None = None,
        skipping: bool | None = None,
        adjust: Adjust | None = None,
    ) -> "Predictor":
        """Return the engine with the options of one restoration; `restore_tensor` accepts it in place of a network.

        strength and only are those of `control.strengths`. skipping says whether experts without a visible effect are
        skipped (see `skipping`); None means only on a CPU, since the check makes a GPU wait. adjust may replace
        decisions about the whole image (see `control.Adjust`).
        """
        return Predictor(self, strengths(self.config.factors, strength, only), skipping, adjust)

    def plan(
        self, height: int, width: int, max_memory: int, *, steps: int = 1, batch: int = 1, exact: bool = False
    ) -> Plan:
        """Plan how to restore an image within `max_memory` bytes (see `f2d.engine.plan`)."""
        return plan(height, width, max_memory, self.dtype, self.config, steps=steps, batch=batch, exact=exact)

    def constants(self, t: int) -> Constants:
        """Return values that depend on t only, cached; two threads that ask first compute the same values."""
        if t not in self._constants:
            with without_autocast(self.device):  # they are kept for callers without it
                self._constants[t] = self.backbone.constants(t)
        return self._constants[t]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._constants.clear()
        return super()._apply(*args, **kwargs)


class Predictor:
    """One restoration's view of an `Engine`: its options and the analysis of its first call; not thread-safe.

    `restore_tensor` needs config, transport, device, dtype and begin. analysis and gates are those of the first call,
    None before it, and seen is its (maps, gates, presence).
    """

    def __init__(
        self,
        engine: Engine,
        strength: tuple[float, ...] | None,
        skipping: bool | None,
        adjust: Adjust | None = None,
    ):
        self.engine, self.strength, self.adjust = engine, strength, adjust
        self.skipping = engine.device.type == "cpu" if skipping is None else skipping
        self.config, self.transport = engine.config, engine.transport
        self.device, self.dtype = engine.device, engine.wide
        self.analysis: ImageAnalysis | None = None
        self.gates: Tensor | None = None

    begin = begin

    @property
    def seen(self) -> tuple[Tensor, Tensor, Tensor] | None:
        if self.analysis is None or self.gates is None:
            return None
        return self.analysis.maps, self.gates, self.analysis.weights

    def look(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `seen` of an image y [B, 3, H, W] in [-1, 1] at t = 0, in one evaluation of the network."""
        start, predict = self.begin(y.to(self.dtype))
        predict(start, None, 0)
        assert self.seen is not None
        return self.seen

    def analyse(self, y: Tensor) -> ImageAnalysis:
        """Analyse y [B, 3, H, W] in [-1, 1] as `F2DNet.analyse`; enhanced image, maps and weights are float32."""
        engine = self.engine
        height, width = y.shape[-2:]
        y = y.to(self.dtype, memory_format=torch.channels_last)
        image, gate = pad_to_multiple(y, self.config.stride), None
        if engine.enhancer is not None:
            image, gate = engine.enhancer(image, self.adjust)
        maps, weights, logits = engine.parser(F.pixel_unshuffle(image, self.config.patch))
        weights = adjusted(weights, "presence", self.adjust)
        return ImageAnalysis(image, maps, weights, logits, gate, height, width)

    def velocity(self, x_t: Tensor, analysis: ImageAnalysis, t: int) -> Prediction:
        """Compute `F2DNet.velocity` at one integer t; x_t = `analysis.enhanced` halves the first convolution's work."""
        engine, patch = self.engine, self.config.patch
        image, constants = analysis.padded_image, engine.constants(t)
        state = analysis.as_state(x_t)
        repeated = state is not None
        x = image if repeated else torch.cat([pad_to_multiple(x_t.to(self.dtype), self.config.stride), image], dim=1)
        shared, features, bottleneck = engine.backbone(F.pixel_unshuffle(x, patch), constants, repeated)
        time, frequency = constants.time.expand(x.shape[0], -1), engine.backbone.frequency(bottleneck)
        gates = engine.gate(time, analysis.weights, analysis.map_means, frequency)
        gates = adjusted(gates, "gates", self.adjust)
        effective = scaled(gates, self.strength)
        run = self._experts_to_run(effective, analysis.padded_maps, features)
        total = engine.experts(features, effective, analysis.padded_maps, shared, run)
        total = F.pixel_shuffle(total, patch)
        if self.config.head == "affine":
            gain, offset = total.chunk(2, dim=1)
            total = torch.addcmul(offset, gain, image)
        if self.analysis is None:
            self.analysis, self.gates = analysis, gates
        return Prediction(total[..., : analysis.height, : analysis.width], gates, tuple(run))

    def _experts_to_run(self, gates: Tensor, maps: Tensor | None, features: Tensor) -> list[int]:
        wanted = [*range(len(self.config.factors))]
        if self.strength is not None:
            wanted = [k for k in wanted if self.strength[k] > 0]
        if not self.skipping:
            return wanted
        affine, pixels = self.config.head == "affine", features.shape[2] * features.shape[3]
        visible = experts_to_run(self.engine.experts.bounds, gates, maps, pixels, affine)
        return [k for k in wanted if k in visible]
