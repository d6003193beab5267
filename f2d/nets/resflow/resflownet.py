"""ResFlow's network: the velocity of image and auxiliary, for images of any size."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.checkpoints.saved import SavedNetwork
from f2d.nets.padding import pad_to_multiple
from f2d.transport.resflow import ResFlow

from .adaptor import Adaptor, Addition, Concatenation
from .config import ResFlowConfig
from .unet import UNet, entry_widths

TIME_SCALE = 1000  # the frequencies of the embedding suit integer steps up to about this number


class ResFlowNet(SavedNetwork):
    """``v(x_t, y_t, t) = d/dt [x_t; y_t]``, time t from 1 (degraded) to 0 (clean).

    forward(x_t [B, 3, H, W], auxiliary of the same shape, or None if config.auxiliary is "none", t in [0, 1], a
    number or [B]) -> [B, 6, H, W], or [B, 3, H, W] without an auxiliary; any H, W >= 1. A new network predicts zeros.
    Its flow is `transport`: `net.transport.draw` draws training states, and these two lines restore an image:

        x, predict = net.begin(y)
        restored = net.transport.restore(predict, x, steps=4, sampler="euler", seed=0)

    Raises ValueError for mismatching shapes, and for a missing or unexpected auxiliary.

    Reversing Flow for Image Restoration (CVPR 2025). `ResFlowConfig` has the sizes, `adaptor` unpublished parts.
    """

    CONFIG = ResFlowConfig
    TITLE = "ResFlow"
    PAPER = "Reversing Flow for Image Restoration (CVPR 2025)"
    config: ResFlowConfig

    def __init__(self, config: ResFlowConfig | None = None):
        super().__init__()
        self.config = config = self.checked(config)
        channels, entries = config.image_channels, entry_widths(config.widths)
        self.injection = None
        if config.auxiliary != "none":
            self.injection = {
                "adaptor": lambda: Adaptor(channels, entries, config.adaptor_width),
                "concatenation": lambda: Concatenation(channels),
                "addition": lambda: Addition(channels),
            }[config.injection]()
        self.unet = UNet(
            channels if self.injection is None else self.injection.input_channels,
            config.head_channels,
            config.widths,
            config.blocks,
            config.attention_levels,
            config.groups,
            config.time_dim,
        )

    @property
    def transport(self) -> ResFlow:
        """The flow the network was trained for."""
        return self.config.transport

    def forward(self, x_t: Tensor, auxiliary: Tensor | None, t: Tensor | float) -> Tensor:
        self._check(x_t, auxiliary)
        batch = x_t.shape[0]  # torch.export would treat len(x_t) as a constant
        if not isinstance(t, Tensor):
            t = torch.full((batch,), float(t), dtype=torch.float32, device=x_t.device)
        if t.shape not in ((), x_t.shape[:1]):
            raise ValueError(f"ResFlowNet: t must be a number or [{batch}], one time per image, got {tuple(t.shape)}")
        height, width = x_t.shape[-2:]
        x, modulations = self._unshuffled(x_t), ()
        if self.injection is not None:
            x, modulations = self.injection(x, self._unshuffled(auxiliary))
        out = self.unet(x, modulations, TIME_SCALE * t.float().expand(batch))
        out = F.pixel_shuffle(out, self.config.patch)[..., :height, :width]
        if self.config.head == "direct":
            return out
        gain, offset, rest = out[:, :3], out[:, 3:6], out[:, 6:]
        return torch.cat([gain * x_t + offset, rest], dim=1)

    def begin(self, y: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor | None, float], Tensor]]:
        """Return ``(x, predict)`` for an image y [B, 3, H, W] in [-1, 1]: the state at t = 1, float32, and the network.

        predict(x, auxiliary, t) is `forward` in the network's own precision (`f2d.transport.interface.Predict`).
        """
        dtype = self.unet.conv_out.weight.dtype

        def predict(x: Tensor, auxiliary: Tensor | None, t: float) -> Tensor:
            return self(x.to(dtype), None if auxiliary is None else auxiliary.to(dtype), t)

        return y.float(), predict

    def _unshuffled(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(pad_to_multiple(x, self.config.stride), self.config.patch)

    def _check(self, x_t: Tensor, auxiliary: Tensor | None) -> None:
        if x_t.ndim != 4 or x_t.shape[1] != 3 or min(x_t.shape[2:]) < 1:
            raise ValueError(f"ResFlowNet: x_t must be [B, 3, H, W] with H, W >= 1, got {tuple(x_t.shape)}")
        if not x_t.is_floating_point():
            raise TypeError(f"ResFlowNet: x_t must hold floating-point values, got {x_t.dtype}")
        if self.injection is None:
            if auxiliary is not None:
                raise ValueError("ResFlowNet: the auxiliary must be None, because this network has none")
        elif auxiliary is None or auxiliary.shape != x_t.shape:
            given = None if auxiliary is None else tuple(auxiliary.shape)
            raise ValueError(f"ResFlowNet: the auxiliary must have the shape of x_t, {tuple(x_t.shape)}, got {given}")
