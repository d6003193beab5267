"""Measures computed by networks of other packages: LPIPS, DISTS and FID of torchmetrics, MUSIQ and CLIP-IQA of pyiqa.

Creating one imports its package and loads its network, which the package downloads on first use; ImportError or OSError
if that fails. All of them receive images in [0, 1], rounded to 8 bits.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from f2d.images import image_to_tensor
from f2d.metrics.batch import eight_bits, to_levels
from f2d.metrics.measure import About, FunctionMeasure

SMALLEST = 32  # pixels; smaller images leave nothing in the last layers of AlexNet and VGG


def network_measure(
    about: About, needs_ground_truth: bool, network: Callable[..., Tensor], device: torch.device
) -> FunctionMeasure:
    """network(restored) or network(restored, ground_truth), both [1,3,H,W] in [0, 1] on `device`, as a measure.

    Threads take turns: a metric of torchmetrics keeps its sums in itself, and would mix the images of two threads.
    """
    turn = Lock()

    @torch.no_grad()
    def run(*images: Tensor) -> Tensor:
        with turn:
            return network(*(eight_bits(image)[None].to(device) for image in images))

    return FunctionMeasure(about, run, needs_ground_truth, SMALLEST)


def lpips(device: torch.device) -> FunctionMeasure:
    """Create LPIPS with AlexNet. Zhang et al., "The Unreasonable Effectiveness of Deep Features" (2018)."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device)
    return network_measure(About("lpips alex", "LPIPS", "lower", digits=4), True, network, device)


def dists(device: torch.device) -> FunctionMeasure:
    """Create DISTS, which compares structure and texture of VGG features.

    Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity" (2020).
    """
    # torchmetrics' own metric would build its VGG again for every image
    from torchmetrics.functional.image.dists import DISTSNetwork

    network = DISTSNetwork().to(device).eval()
    return network_measure(About("dists", "DISTS", "lower", digits=4), True, network, device)


def musiq(device: torch.device) -> FunctionMeasure:
    """Create MUSIQ, a transformer's estimate of quality from 0 to 100, without ground truth. Ke et al. (2021)."""
    return _pyiqa("musiq", About("musiq", "MUSIQ", "higher", digits=2), device)


def clip_iqa(device: torch.device) -> FunctionMeasure:
    """Create CLIP-IQA: P("good photo") against "bad photo". Wang et al., "Exploring CLIP for Assessing" (2023)."""
    return _pyiqa("clipiqa", About("clip-iqa", "CLIP-IQA", "higher"), device)


def _pyiqa(name: str, about: About, device: torch.device) -> FunctionMeasure:
    import pyiqa

    return network_measure(about, False, pyiqa.create_metric(name, device=device), device)


class Fid:
    """``|μ - ν|² + tr(Σ + Τ - 2 (Σ Τ)^½)`` of Inception's 2048 features over two sets; a `SetMeasure`.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017). It decreases as the sets grow
    and is far from its limit below 2048 images, so compare only sets of one size.
    """

    about = About("fid", "FID", "lower", digits=2)

    def __init__(self, device: torch.device):
        from torchmetrics.image.fid import FrechetInceptionDistance

        self._device = device
        self._metric = FrechetInceptionDistance(feature=2048, normalize=False).to(device)

    def __call__(self, restored: list[Path], ground_truth: list[Path]) -> float:
        """NaN for fewer than two images on either side. Raises `f2d.images.ImageError` if a file cannot be read."""
        if min(len(restored), len(ground_truth)) < 2:
            return float("nan")
        self._metric.reset()
        for paths, real in ((restored, False), (ground_truth, True)):
            for path in paths:
                levels = to_levels(image_to_tensor(path)).to(torch.uint8)
                with torch.no_grad():
                    self._metric.update(levels[None].to(self._device), real=real)
        return float(self._metric.compute())
