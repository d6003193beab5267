"""Engine for networks that run as they were trained: the interface of the fast path without folding and bands."""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from f2d.nets.resflow import ResFlowNet
from f2d.transport.interface import Predict

from .control import Adjust, strengths
from .plan import Plan, plan, weight_bytes


class PlainEngine:
    """``v(x_t, y_t, t)`` of a ResFlowNet in eval mode, with the interface of `Engine` that `Restorer` needs.

    The network is copied to `device` in channels_last (in which attention on a CPU needs no matrix of all pairs of
    pixels). With dtype bfloat16 it runs under PyTorch's autocast with float32 weights; other types are those of the
    weights. Images, auxiliary and transport are always float32 or wider. Any number of threads may share an engine.
    """

    def __init__(self, net: ResFlowNet, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None):
        self.config, self.transport, self.dtype = net.config, net.transport, dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.net.to(device, self.wide, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def predictor(
        self,
        *,
        strength: Mapping[str, float] | None = None,
        only: Iterable[str] | None = None,
        adjust: Adjust | None = None,
    ) -> "PlainPredictor":
        """Return what `restore_tensor` accepts in place of a network; strength and only raise ValueError.

        adjust is never called, as this network takes no decision about the whole image.
        """
        strengths(self.config.factors, strength, only)
        return PlainPredictor(self)

    def plan(
        self, height: int, width: int, max_memory: int, *, steps: int = 1, batch: int = 1, exact: bool = False
    ) -> Plan:
        """Plan a whole-image pass, or raise BudgetError (see `f2d.engine.plan`)."""
        weights = weight_bytes(self.net)
        return plan(height, width, max_memory, self.dtype, self.config, weights=weights, batch=batch, exact=exact)


class PlainPredictor:
    """One restoration's view of a `PlainEngine`, like `Predictor` for `Engine`.

    As there are no factors, seen is (maps [B, 0, H, W], gates [B, 0], presence [B, 0]) after a first call, else None.
    """

    def __init__(self, engine: PlainEngine):
        self.engine, self.transport = engine, engine.transport
        self.device, self.dtype = engine.device, engine.wide
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None

    def begin(self, y: Tensor) -> tuple[Tensor, Predict]:
        """Begin a restoration as `ResFlowNet.begin`, in the engine's precision."""
        x, predict = self.engine.net.begin(y)
        batch, _, height, width = y.shape
        self.seen = (x.new_empty(batch, 0, height, width), x.new_empty(batch, 0), x.new_empty(batch, 0))
        return x, self._in_its_precision(predict)

    def look(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `seen` of an image y [B, 3, H, W] in [-1, 1]."""
        self.begin(y)
        assert self.seen is not None
        return self.seen

    def _in_its_precision(self, predict: Predict) -> Callable[[Tensor, Tensor | None, float], Tensor]:
        if self.engine.dtype != torch.bfloat16:
            return predict

        def under_autocast(x: Tensor, auxiliary: Tensor | None, t: float) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16):
                return predict(x, auxiliary, t).float()

        return under_autocast
