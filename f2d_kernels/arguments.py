"""The arguments of each op and its gradients, in the one order of schemas, formulas and kernels.

Gradients are tensors to fill (None, or an empty list, where none is needed), or flags that say which are needed.
"""

from collections import namedtuple
from typing import NamedTuple

from torch import Tensor


class ExpertHead(NamedTuple):
    features: list[Tensor]
    weight: Tensor
    bias: Tensor | None
    channel_scale: Tensor | None
    gates: Tensor
    maps: Tensor | None
    base: Tensor | None = None  # no gradient reads it


ExpertHeadGradients = namedtuple("ExpertHeadGradients", "features weight bias channel_scale gates maps")


class GaussianTransition(NamedTuple):
    terms: list[Tensor]
    coefficients: Tensor
    std: Tensor | None
    noise: Tensor | None
    seed: Tensor | None
    stream: int
    top: int
    left: int


GaussianTransitionGradients = namedtuple("GaussianTransitionGradients", "terms coefficients std noise")


class LognormalTransition(NamedTuple):
    x: Tensor
    mu: Tensor
    log_mean: Tensor
    log_std: Tensor
    noise: Tensor | None
    seed: Tensor | None
    stream: int
    top: int
    left: int


LognormalTransitionGradients = namedtuple("LognormalTransitionGradients", "x mu log_mean log_std noise")


class TransportStep(NamedTuple):
    x: Tensor
    deltas: list[Tensor]
    gates: Tensor
    maps: Tensor | None
    base: Tensor | None
    log_mean: Tensor
    log_std: Tensor
    anchor: Tensor | None
    low: float
    high: float
    noise: Tensor | None
    seed: Tensor | None
    stream: int
    top: int
    left: int


# mu is the sum under the clamp, whose gradient is that of base and of anchor, each in its own dtype.
TransportStepGradients = namedtuple("TransportStepGradients", "x deltas gates maps mu log_mean log_std noise")
TransportStepNeeds = namedtuple("TransportStepNeeds", "x deltas gates maps base log_mean log_std anchor noise")
