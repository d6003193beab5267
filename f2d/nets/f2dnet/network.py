"""F²D-Net: factorized prediction of the transport from a degraded image to the clean one."""

import os
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from f2d.checkpoints import official
from f2d.checkpoints.saved import SavedNetwork
from f2d.nets.padding import pad_to_multiple
from f2d.transport import LearnedSchedule, LogNormal, LogNormalSchedule
from f2d.transport.interface import Predict
from f2d_kernels import expert_assembly

from .backbone import Backbone
from .config import F2DNetConfig
from .enhancer import Enhancer
from .experts import Expert, LightExpert
from .gate import Gate
from .parser import LightParser, Parser


class Analysis(NamedTuple):
    """The network's analysis of an image, which does not depend on t.

    Fields with "padded" in their name have the network's size; `enhanced` and `maps` have the image's size.
    """

    padded_image: Tensor  # [B, 3, H', W'] in [-1, 1]: the enhanced image, H' and W' multiples of the stride
    padded_maps: Tensor | None  # [B, K, H'/p, W'/p] in (0, 1), or None for image-level routing
    weights: Tensor  # [B, K] in (0, 1): presence of each factor
    logits: Tensor  # [B, K]: class logits of the factors
    enhancer_gate: Tensor | None  # [B, 1, 1, 1] in (0, 1), or None without an enhancer
    height: int
    width: int

    @property
    def enhanced(self) -> Tensor:
        """[B, 3, H, W]: the enhanced image, which the rest of the network processes."""
        return self.padded_image[..., : self.height, : self.width]

    @property
    def maps(self) -> Tensor:
        """[B, K, H, W]: the weight of each factor per pixel (ones for image-level routing)."""
        if self.padded_maps is None:
            batch, factors = self.weights.shape
            return self.weights.new_ones(()).expand(batch, factors, self.height, self.width)
        patch = self.padded_image.shape[-1] // self.padded_maps.shape[-1]
        maps = self.padded_maps
        if patch > 1:
            maps = maps.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
        return maps[..., : self.height, : self.width]

    @property
    def map_means(self) -> Tensor:
        """[B, K]: spatial means of the maps over the padded size, the gate's input."""
        return torch.ones_like(self.weights) if self.padded_maps is None else self.padded_maps.mean(dim=(2, 3))


class F2DOutput(NamedTuple):
    """The result of one network call, for losses, selectivity measures and samplers."""

    prediction: Tensor  # [B, 3, H, W]: v
    padded_shared: Tensor  # [B, C, H'/p, W'/p]: the shared head, C = 3 p² (6 p² for an affine head)
    padded_deltas: tuple[Tensor, ...]  # K tensors like padded_shared: the correction of each expert
    gates: Tensor  # [B, K]: alpha, rows summing to 1
    frequency_embedding: Tensor  # [B, frequency_dim]
    analysis: Analysis

    @property
    def shared_velocity(self) -> Tensor:
        """[B, 3, H, W], or [B, 6, H, W] (gain, offset) for an affine head: the correction that all factors share."""
        return self._to_image(self.padded_shared)

    @property
    def deltas(self) -> Tensor:
        """[B, K, 3, H, W], or [B, K, 6, H, W] for an affine head: the corrections of the experts."""
        return torch.stack([self._to_image(delta) for delta in self.padded_deltas], dim=1)

    def _to_image(self, x: Tensor) -> Tensor:
        patch = self.analysis.padded_image.shape[-1] // x.shape[-1]
        return F.pixel_shuffle(x, patch)[..., : self.analysis.height, : self.analysis.width]


class Factorized(Protocol):
    """The methods that `begin` needs: those of an F2DNet, or of an engine that computes the same."""

    def analyse(self, y: Tensor) -> Any: ...
    def velocity(self, x_t: Tensor, analysis: Any, t: Any) -> Any: ...


def begin(net: Factorized, y: Tensor) -> tuple[Tensor, Predict]:
    """Return (x_0 [B, 3, H, W] float32, predict) for an image y: the start of its transport, and its predictor.

    The image is analysed once; x_0 is the enhanced image.
    """
    analysis = net.analyse(y)

    def predict(x: Tensor, auxiliary: Tensor | None, t: Any) -> Tensor:
        return net.velocity(x.to(y.dtype), analysis, t).prediction

    return analysis.enhanced.float(), predict


class F2DNet(SavedNetwork):
    """``v(x_t, y, t) = v_shared + Σ_k alpha_k m_k ⊙ Δ_k`` (affine head: that sum is (G, B) and v = G ⊙ y + B).

    forward(x_t [B, 3, H, W], y [B, 3, H, W] in [-1, 1], t int or [B]) -> F2DOutput, any H, W >= 1. It is
    `velocity(x_t, analyse(y), t)`: enhancer and parser depend only on the image, so a sampler calls `analyse` once.
    config.target defines the meaning of v (mu - x_t for SFLOW). The transport starts from the enhanced image, so
    training draws x_t between `analyse(y).enhanced` and the clean image. Raises ValueError for mismatching shapes.

    Factorized Stochastic Transport for Composite Degradation Image Restoration; `F2DNetConfig` defines the sizes.
    """

    CONFIG = F2DNetConfig
    TITLE = "F²D-Net"
    PAPER = "Factorized Stochastic Transport for Composite Degradation Image Restoration"
    config: F2DNetConfig

    def __init__(self, config: F2DNetConfig | None = None):
        super().__init__()
        self.config = config = self.checked(config)
        light = config.design == "light"
        self.enhancer = None if config.enhancer_width is None else Enhancer(config)
        self.parser = LightParser(config) if light else Parser(config)
        self.backbone = Backbone(config)
        expert = LightExpert if light else Expert
        self.experts = nn.ModuleList(
            expert(config.stage_widths[0], config.expert_width, config.head_channels, 1 + k, config.groups)
            for k in range(len(config.factors))
        )
        self.gate = Gate(config)
        self.learned_schedule = LearnedSchedule(config.schedule) if config.learned_schedule else None

    begin = begin

    @property
    def schedule(self) -> LogNormalSchedule:
        """The schedule of the process: that of config, or the schedule learned from it."""
        return self.config.schedule if self.learned_schedule is None else self.learned_schedule.schedule()

    @property
    def transport(self) -> LogNormal:
        """The process with the network's prediction target."""
        return LogNormal(self.schedule, self.config.target)

    def analyse(self, y: Tensor) -> Analysis:
        """Compute ``(enhanced y, maps, weights, logits)`` of an image y [B, 3, H, W] in [-1, 1]."""
        _check_image("y", y)
        height, width = y.shape[-2:]
        image, enhancer_gate = pad_to_multiple(y, self.config.stride), None
        if self.enhancer is not None:
            image, enhancer_gate = self.enhancer(image)
        parsed = self.parser(F.pixel_unshuffle(image, self.config.patch))
        return Analysis(image, parsed.maps, parsed.weights, parsed.logits, enhancer_gate, height, width)

    def velocity(self, x_t: Tensor, analysis: Analysis, t: Tensor | int, gate_noise: Tensor | None = None) -> F2DOutput:
        """``v(x_t, y, t)`` for a state x_t [B, 3, H, W] of the analysed image, at step t (int, or [B]).

        gate_noise [B, K] is the standard normal noise on the gate logits in training; by default it is drawn.
        """
        _check_image("x_t", x_t)
        batch, height, width = x_t.shape[0], analysis.height, analysis.width
        if x_t.shape[-2:] != (height, width) or batch != analysis.weights.shape[0]:
            raise ValueError(
                f"F2DNet: x_t must have the image's batch {analysis.weights.shape[0]} and size {height}x{width}, "
                f"got {tuple(x_t.shape)}"
            )
        t = _as_steps(t, batch, x_t.device)
        patch, image = self.config.patch, analysis.padded_image
        state = pad_to_multiple(x_t, self.config.stride)
        out = self.backbone(F.pixel_unshuffle(torch.cat([state, image.to(state.dtype)], dim=1), patch), t)
        gates = self.gate(out.time, analysis.weights, analysis.map_means, out.frequency, gate_noise)
        deltas = tuple(expert(out.features) for expert in self.experts)
        total = F.pixel_shuffle(expert_assembly(deltas, gates, analysis.padded_maps, out.shared), patch)
        if self.config.head == "affine":
            gain, offset = total.chunk(2, dim=1)
            total = gain * image + offset
        prediction = total[..., :height, :width]
        return F2DOutput(prediction, out.shared, deltas, gates, out.frequency, analysis)

    def forward(self, x_t: Tensor, y: Tensor, t: Tensor | int) -> F2DOutput:
        return self.velocity(x_t, self.analyse(y), t)

    @classmethod
    def from_official(
        cls, path: str | os.PathLike, weights: str = "ema", factors: tuple[str, ...] | None = None
    ) -> "F2DNet":
        """Load a checkpoint of the authors (.pt) in eval mode; its shapes give the sizes, the enhancer and the factors.

        weights: "ema" (the model with its averaged weights in place of the plain ones) or "model". factors: names that
        differ from those of the published three-, four- and five-task models. Raises ValueError, naming the problem, if
        the file is no such checkpoint.
        """
        config, state = official.read_official(path, weights)
        if factors is not None:
            config["factors"] = tuple(factors)
        try:
            parsed = F2DNetConfig(**config)
        except ValueError as error:
            raise ValueError(f"{path} is not an F²D-Net: {error}") from None
        return cls._with_weights(parsed, state, path)


def _check_image(name: str, x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < 1:
        raise ValueError(f"F2DNet: {name} must be [B, 3, H, W] with H, W >= 1, got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"F2DNet: {name} must hold floating-point values in [-1, 1], got {x.dtype}")


def _as_steps(t: Tensor | int, batch: int, device: torch.device) -> Tensor:
    if not isinstance(t, Tensor):
        return torch.full((batch,), t, device=device)
    if t.ndim == 0:
        return t.expand(batch)
    if t.shape != (batch,):
        raise ValueError(f"F2DNet: t must be an int or [{batch}], one step per image, got {tuple(t.shape)}")
    return t
