"""F²D-Net in diffusers.

    from f2d.integrations import LogNormalScheduler, RestorationPipeline        # pip install "f2d[diffusers]"

Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline import RestorationModel, RestorationPipeline
    from .scheduler import LogNormalScheduler, LogNormalSchedulerOutput

__all__ = ["LogNormalScheduler", "LogNormalSchedulerOutput", "RestorationModel", "RestorationPipeline"]

_HOMES = {
    "LogNormalScheduler": "scheduler",
    "LogNormalSchedulerOutput": "scheduler",
    "RestorationModel": "pipeline",
    "RestorationPipeline": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'f2d.integrations' has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as missing:
        if missing.name != "diffusers":
            raise
        raise ImportError(f"f2d.integrations.{name} needs diffusers: pip install 'f2d[diffusers]'") from missing
    return getattr(home, name)


def __dir__() -> list[str]:
    return __all__
