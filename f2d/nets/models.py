"""All architectures by name: presets, configurations and trained networks."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from f2d import checkpoints

from .f2dnet import F2DNet, F2DNetConfig
from .f2dnet import config as f2d_config
from .resflow import ResFlowConfig, ResFlowNet
from .resflow import config as resflow_config

Config = F2DNetConfig | ResFlowConfig
Network = F2DNet | ResFlowNet

PRESETS: dict[str, Config] = {**f2d_config.PRESETS, **resflow_config.PRESETS}


def config_of(model: str, changes: dict[str, Any] | None = None) -> Config:
    """Return a preset's configuration with some fields replaced; raise ValueError for unknown or invalid values."""
    if model not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {model!r}")
    config, changes = PRESETS[model], changes or {}
    known = {field.name for field in fields(config)}
    unknown = sorted(set(changes) - known)
    if unknown:
        raise ValueError(f"{model} has no {', '.join(unknown)}, only {', '.join(sorted(known))}")
    return replace(config, **changes)


def build(config: Config) -> Network:
    """Build a freshly initialised network."""
    return F2DNet(config) if isinstance(config, F2DNetConfig) else ResFlowNet(config)


def load_config(source: str | os.PathLike, **download: Any) -> Config:
    """Load the configuration of a checkpoint of any architecture, as `checkpoints.find` finds it."""
    folder = checkpoints.find(source, **download)
    return _kind(folder, ResFlowConfig, F2DNetConfig).from_pretrained(folder)


def load_network(source: str | os.PathLike, **download: Any) -> Network:
    """Load the trained network of a checkpoint, as `checkpoints.find` finds it, in eval mode. Errors name the file."""
    folder = checkpoints.find(source, **download)
    return _kind(folder, ResFlowNet, F2DNet).from_pretrained(folder)


def _kind(folder: Path, resflow: Any, f2d: Any) -> Any:
    values = checkpoints.read_config(folder)
    is_resflow = isinstance(values, dict) and values.get("architecture") == resflow_config.ARCHITECTURE
    return resflow if is_resflow else f2d
