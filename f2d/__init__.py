"""F²D-Net: restore images that have several degradations at once, by factorized stochastic transport.

    restored = f2d.load("f2d-lite")("photo.jpg").image     # or a Pillow image, an array, a tensor

    net = F2DNet.from_pretrained("f2d-lite")               # the network itself, for training and inspection
    restored = restore_tensor(net, y)                      # y [B, 3, H, W] in [-1, 1]

`import f2d` is fast, because names are only imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from f2d.degradation import degrade
    from f2d.engine.restorer import load
    from f2d.nets import F2DNet, F2DNetConfig
    from f2d.transport import LogNormalSchedule
    from f2d.transport.restore import restore_tensor
    from f2d_kernels import __version__

__all__ = ["F2DNet", "F2DNetConfig", "LogNormalSchedule", "__version__", "degrade", "load", "restore_tensor"]

_HOMES = {
    "F2DNet": "f2d.nets",
    "F2DNetConfig": "f2d.nets",
    "LogNormalSchedule": "f2d.transport",
    "__version__": "f2d_kernels",
    "degrade": "f2d.degradation",
    "load": "f2d.engine.restorer",
    "restore_tensor": "f2d.transport.restore",
}


if not TYPE_CHECKING:  # to a type checker, a module with this function has every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'f2d' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
