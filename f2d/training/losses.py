"""The losses of F²D-Net, one function each. Shapes: images [B,3,H,W] in [-1, 1], factors K, labels [B,K] in {0, 1}.

Source: "Factorized Stochastic Transport for Composite Degradation Image Restoration" and the authors' training code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from f2d.metrics import luma

Sum = Callable[[Tensor], Tensor]
"""A sum over the batch [B, ...] -> [...], differentiable; over the batches of all processes where there are several."""


def batch_sum(values: Tensor) -> Tensor:
    """``Σ_b values[b]`` over one process's batch."""
    return values.sum(0)


def charbonnier(prediction: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """mean sqrt((prediction - target)² + eps²) of each sample [B]: L1, smooth at zero."""
    return torch.sqrt((prediction - target) ** 2 + eps**2).flatten(1).mean(1)


def absolute(prediction: Tensor, target: Tensor) -> Tensor:
    """mean |prediction - target| of each sample [B]."""
    return (prediction - target).abs().flatten(1).mean(1)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    """mean (prediction - target)² of each sample [B]."""
    return (prediction - target).square().flatten(1).mean(1)


def log_squared(prediction: Tensor, target: Tensor, eps: float = 1e-4) -> Tensor:
    """ln(mean (prediction - target)² + eps) of each sample [B]: PSNR up to its unit.

    Dark and hazy images, whose errors are always large, do not outweigh the others. It is the "PSNR loss" of HINet
    (Chen et al., 2021).
    """
    return torch.log(squared(prediction, target) + eps)


PIXEL = {"charbonnier": charbonnier, "l1": absolute, "l2": squared, "log_l2": log_squared}


def sample_weights(errors: Tensor, factors: Tensor, hardness: float) -> Tensor:
    """``w_b = factor_b · error_b ** hardness``, without gradient: how much each sample [B] counts in a batch's mean.

    errors [B]: the samples' distances, at least 0; factors [B]: the weights of their categories. hardness 0 ignores the
    errors, and 1 weights a sample twice as bad twice as much. (Lin et al., Focal Loss for Dense Object Detection, 2017,
    with the error in place of 1 - p.)
    """
    return factors * errors.detach() ** hardness


def weighted_mean(values: Tensor, weights: Tensor, *, total: Sum = batch_sum) -> Tensor:
    """``Σ_b w_b values_b / Σ_b w_b``, 0 where all weights are 0; values, weights [B], w_b >= 0."""
    return total(weights * values) / total(weights).clamp_min(torch.finfo(weights.dtype).tiny)


def velocity(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """``lambda(t) · mean (v - d/dt [x_t; y_t])²`` of each sample [B]; weight [B] is lambda(t). ResFlow, eq. 9-11."""
    return weight * squared(prediction, target)


def frequency(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 of real and imaginary parts of rfft2(prediction) - rfft2(target), averaged over both; in float32.

    The transform is not normalised, as in the authors' code, so the term grows with sqrt(H·W): weight it by the crop.
    """
    difference = torch.fft.rfft2(prediction.float()) - torch.fft.rfft2(target.float())
    return torch.view_as_real(difference).abs().mean()


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the factor logits [B,K]."""
    return F.binary_cross_entropy_with_logits(logits.float(), labels)


def presence(weights: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the factor weights w [B,K] in (0, 1)."""
    return F.binary_cross_entropy(weights.float(), labels.float())


def map_supervision(maps: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of the expert maps m [B,K,H,W] with a target of the same shape in [0, 1]."""
    return F.binary_cross_entropy(maps.float(), target)


def localisation(maps: Tensor, target: Tensor, *, total: Sum = batch_sum) -> Tensor:
    """``1 - cov(m, t) / sqrt(var m · var t)`` over the pixels: Pearson's correlation of the maps with the true ones.

    maps, target [B,K,H,W]; averaged over the maps [b,k] whose target varies, 0 where none does. It weighs a faint rain
    mask, whose values average 0.05 and hardly move the cross-entropy, as much as dense haze.
    """
    centred = [x.float() - x.float().mean(dim=(2, 3), keepdim=True) for x in (maps, target)]
    covariance = (centred[0] * centred[1]).mean(dim=(2, 3))
    variances = [x.square().mean(dim=(2, 3)) for x in centred]
    varies = (variances[1] > 1e-6).float()  # a standard deviation of a quarter of a grey level
    correlation = covariance * torch.rsqrt(variances[0] * variances[1] + 1e-12)
    return total((varies * (1 - correlation)).sum(1)) / total(varies.sum(1)).clamp_min(1)


def map_target(maps: Tensor, labels: Tensor) -> Tensor:
    """label · (1 + m / max m) / 2 per pixel [B,K,H,W], from the synthesis' true maps m of the same shape.

    The papers' target is the label alone. The true maps alone would shut an expert off: a rain mask averages 0.07, and
    the rain expert's correction is multiplied by the map. Half of the target therefore encodes presence, half location.
    """
    peak = maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return labels[:, :, None, None] * (1 + maps / peak) / 2


def balance(gates: Tensor, labels: Tensor, *, present_only: bool = True, total: Sum = batch_sum) -> Tensor:
    """CV²(Σ_b alpha / Σ_b labels) over the factors: how unevenly the experts contribute where they are needed.

    It uses the unbiased standard deviation, sums clamped at 1e-8, and `total` to sum over the batch. The authors
    average over all factors, so the term saturates whenever the batch lacks one (39 % of batches of four);
    `present_only` excludes those factors.
    """
    needed = total(labels)
    load = total(gates.float()) / needed.clamp(min=1e-8)
    if present_only:
        load = load[needed > 0]
    if load.numel() < 2:
        return gates.new_zeros((), dtype=torch.float32)
    return load.var() / load.mean().clamp(min=1e-8) ** 2


def time_prior(labels: Tensor, t: Tensor, num_steps: int) -> Tensor:
    """[B,K] gate targets over the factors present, order low/haze/rain/snow, rows summing to 1.

    t/T < 0.33: [.3, .3, 1, 1] (small structures first); < 0.67: [.3, 1, .5, .5]; else [1, .5, .3, .3]. With no factor
    present the row is zero. Raises ValueError for labels of other factors than these four.
    """
    if labels.ndim != 2 or labels.shape[1] != 4:
        raise ValueError(f"time_prior: labels must be [B, 4] (low, haze, rain and snow), got {tuple(labels.shape)}")
    stages = labels.new_tensor([[0.3, 0.3, 1.0, 1.0], [0.3, 1.0, 0.5, 0.5], [1.0, 0.5, 0.3, 0.3]])
    position = t.to(labels.dtype) / num_steps
    stage = (position >= 0.33).long() + (position >= 0.67).long()
    prior = stages[stage] * labels
    return prior / prior.sum(1, keepdim=True).clamp(min=1e-8)


def gate_prior(gates: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the gates alpha [B,K] to the time prior."""
    return F.mse_loss(gates.float(), target.float())


def enhancement(enhanced: Tensor, degraded: Tensor, clean: Tensor, dark: Tensor, *, total: Sum = batch_sum) -> Tensor:
    """``0.7 |Y(e) - Y(c)| + 0.3 charbonnier(e, c) + 0.2 max(0, |Y(e) - Y(c)| - |Y(d) - Y(c)|)``, values in [0, 1].

    Image means, averaged over the dark samples (0 where there are none). enhanced, degraded, clean [B,3,H,W] in
    [-1, 1]; dark [B] in {0, 1}; Y is BT.601 luma. The last term is paid where the enhancer moves away from the target.
    """

    enhanced, degraded, clean = ((x.float() + 1) / 2 for x in (enhanced, degraded, clean))
    after, before = (absolute(luma(x), luma(clean)) for x in (enhanced, degraded))
    pixel = charbonnier(enhanced, clean)
    each = 0.7 * after + 0.3 * pixel + 0.2 * (after - before).clamp_min(0)
    return total(dark * each) / total(dark).clamp_min(1)


def enhancer_gate(gate: Tensor, dark: Tensor, *, total: Sum = batch_sum) -> Tensor:
    """``Σ_b dark_b (1 - g_b) / B``: dark photographs open the enhancer's gate g [B,1,1,1]; dark [B] in {0, 1}."""
    return total(dark * (1 - gate.float().flatten())) / total(torch.ones_like(dark))
