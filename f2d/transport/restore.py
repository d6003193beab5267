"""Restore a batch of images with a trained network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .interface import Restorable, sampling

FLIPS = ((), (3,), (2,), (2, 3))  # identity and the three flips


def restore_tensor(
    net: Restorable,
    y: Tensor,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int | Tensor | None = None,
    noise: Tensor | None = None,
    tta: bool = False,
) -> Tensor:
    """``restored = transport(y)``: carry the (enhanced) image y to the clean one in `steps` network evaluations.

    y [B, 3, H, W] in [-1, 1], any H, W >= 1, on the network's device -> float32 [B, 3, H, W] in [-1, 1].
    net: the plain network, or the predictor of its engine (`f2d.engine.engine_of`), which computes the same function
    faster. steps, sampler: see `sampling`. Pass noise [steps, B, 3, H, W] (ResFlow: [1, B, 3, H, W]) or a seed.
    tta: average over the image and three flips, which takes four times as long. Given noise is flipped with the image,
    whereas a seed draws noise in the frame of each flip. The network runs in eval mode, without gradients.

    One step of F²D-Net (its main mode) gives the conditional mean to within 0.04 grey levels on average and a few in
    single pixels; use steps > 1 to draw different samples. Raises ValueError or TypeError for a wrong shape, type or
    device, an invalid number of steps, or an unknown sampler.
    """
    for name, value in (("y", y), ("noise", y if noise is None else noise)):
        if not isinstance(value, Tensor):
            raise TypeError(f"restore_tensor: {name} must be a tensor, got {type(value).__name__}")
    if not all(hasattr(net, name) for name in ("begin", "transport", "device", "dtype")):
        raise TypeError(
            "restore_tensor: net must be an F2DNet, a ResFlowNet, or the predictor of an engine, "
            f"got {type(net).__name__}"
        )
    if y.ndim != 4 or y.shape[1] != 3:
        raise ValueError(f"restore_tensor: y must be [B, 3, H, W], got {tuple(y.shape)}")
    if not y.is_floating_point():
        raise TypeError(f"restore_tensor: y must hold floating-point values in [-1, 1], got {y.dtype}")
    if y.device != net.device:
        raise ValueError(f"restore_tensor: y must be on the network's device {net.device}, got {y.device}")

    steps, sampler = sampling(net.transport, steps, sampler)

    def run(flip: tuple[int, ...]) -> Tensor:
        flipped_noise = None if noise is None else noise.flip([axis + 1 for axis in flip])
        x_0, predict = net.begin(y.flip(flip).to(net.dtype))
        how: dict[str, Any] = {"steps": steps, "sampler": sampler, "noise": flipped_noise, "seed": seed}
        return net.transport.restore(predict, x_0, **how).flip(flip)

    if y.shape[0] == 0:
        return y.float()
    with evaluating(net), torch.no_grad():
        if not tta:
            return run(())
        return torch.stack([run(flip) for flip in FLIPS]).mean(dim=0)


@contextmanager
def evaluating(net: Restorable) -> Iterator[None]:
    """Put a network into eval mode inside the block, and restore its mode afterwards; predictors never train."""
    if not isinstance(net, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:  # by `train`, where some layers merge and separate weights; parents come first
            if module.training != training:
                module.train(training)
