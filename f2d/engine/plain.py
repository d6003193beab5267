"""Networks that run as they were trained: the same interface as the fast path, without its folding and bands."""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from f2d.nets.resflow import ResFlowNet
from f2d.transport.interface import Predict

from .control import strengths
from .plan import Plan, plan_whole, weight_bytes


class PlainEngine:
    """``v(x_t, y_t, t)`` of a ResFlowNet in eval mode, beside `Engine` and with what `Restorer` uses of it.

    The network is copied to `device` in channels_last (in which attention on a CPU needs no matrix of all pairs of
    pixels). dtype: bfloat16 is PyTorch's autocast over float32 weights, another type that of the weights; images,
    auxiliary and transport are float32 or wider whatever it is. Read-only: any number of threads may share it.
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
        self, *, strength: Mapping[str, float] | None = None, only: Iterable[str] | None = None
    ) -> "PlainPredictor":
        """What `restore_tensor` takes in place of a network. ValueError for strength and only, as there are
        no factors."""
        strengths(self.config.factors, strength, only)
        return PlainPredictor(self)

    def plan(
        self, height: int, width: int, max_memory: int, *, steps: int = 1, batch: int = 1, exact: bool = False
    ) -> Plan:
        """Whole, or BudgetError: see `plan.plan_whole`."""
        weights = weight_bytes(self.net)
        return plan_whole(height, width, max_memory, self.config, self.dtype, weights, batch=batch, exact=exact)


class PlainPredictor:
    """One restoration's view of a `PlainEngine`, as `Predictor` is of an `Engine`.

    seen: (maps [B, 0, H, W], gates [B, 0], presence [B, 0]) of the image begun last, None before: there are no factors.
    """

    def __init__(self, engine: PlainEngine):
        self.engine, self.transport = engine, engine.transport
        self.device, self.dtype = engine.device, engine.wide
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None

    def begin(self, y: Tensor) -> tuple[Tensor, Predict]:
        """As `ResFlowNet.begin`, in the engine's precision."""
        x, predict = self.engine.net.begin(y)
        batch, _, height, width = y.shape
        self.seen = (x.new_empty(batch, 0, height, width), x.new_empty(batch, 0), x.new_empty(batch, 0))
        return x, self._in_its_precision(predict)

    def look(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`seen` of an image y [B, 3, H, W] in [-1, 1]."""
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
