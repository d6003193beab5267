"""What restores whole images in the benchmarks: the engine, the plain network, and that with PyTorch's autocast.

The weights are random rather than trained, so that no tensor is small: seeded normals over the square root of the
fan-in, all tensors non-zero, heads small enough that few pixels leave the range. The photograph is the demo's coffee.
All use the same transition kernel; noise from PyTorch's operators would cost the plain network a seventh of
f2d-lite's time.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.registry import Case

HEAD_GAIN = 0.25
MOST_CLAMPED = 0.05
# least agreement with the plain float32 network: PSNR in dB, range 2
LEAST_PSNR = {torch.float32: 80.0, torch.bfloat16: 45.0}
FORWARD_SEED = 7


def drawn_network(preset: str, seed: int = 0) -> Any:
    """Build an F2DNet of a preset with random weights as described above."""
    from f2d.nets import F2DNet

    net, generator = F2DNet.from_preset(preset).eval().requires_grad_(False), torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if name.endswith("laplacian"):
            continue
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            values /= math.sqrt(parameter[0].numel())
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        else:
            values *= 0.1
        if "conv_out" in name or "project_out" in name:
            values *= HEAD_GAIN
        parameter.copy_(values)
    return net


def photograph(height: int, width: int) -> Tensor:
    """Return the photograph as [1, 3, H, W] in [0, 1]."""
    from f2d.demo import sample_photograph
    from f2d.images import image_to_tensor

    pixels = image_to_tensor(sample_photograph("coffee"))[None]
    return F.interpolate(pixels, (height, width), mode="bilinear", antialias=True).clamp(0, 1)


def restorers(case: Case, device: torch.device) -> dict[str, tuple[str, Callable[[], Tensor]]]:
    """Map names to (role, call that restores one image). The first is ours, the second the reference."""
    from f2d.engine.execution import choose_execution
    from f2d.engine.restorer import Restorer
    from f2d.transport.restore import restore_tensor

    net = drawn_network(f"f2d-{case.name.split('/')[0]}").to(device)
    half = case.dtype == torch.bfloat16
    restorer = Restorer(net, choose_execution(str(device), "bf16" if half else "float32"))
    image = photograph(case.height, case.width).to(device)
    y = image * 2 - 1

    def engine() -> Tensor:
        with torch.inference_mode():
            predictor = restorer.engine.predictor(skipping=False)
            return restore_tensor(predictor, y.to(memory_format=torch.channels_last), seed=FORWARD_SEED)

    @torch.inference_mode()
    def plain() -> Tensor:
        return restore_tensor(net, y, seed=FORWARD_SEED)

    found = {"engine": ("ours", engine), "plain float32 NCHW": ("plain", plain)}
    if half:
        last = drawn_network(f"f2d-{case.name.split('/')[0]}").to(device, memory_format=torch.channels_last)

        @torch.inference_mode()
        def autocast() -> Tensor:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                return restore_tensor(last, y.to(memory_format=torch.channels_last), seed=FORWARD_SEED)

        found["autocast, channels_last"] = ("eager", autocast)
    return found


def problem(case: Case, results: dict[str, Tensor]) -> str | None:
    """Describe how the engine's result differs from the plain network's; None if they agree."""
    exact = results["plain float32 NCHW"].double()
    clamped = (exact.abs() >= 1).double().mean().item()
    if clamped > MOST_CLAMPED:
        return f"{clamped:.1%} of the outputs are clamped, which would hide errors; allowed {MOST_CLAMPED:.0%}"
    found = psnr(results["engine"].double(), exact)
    least = LEAST_PSNR[case.dtype]
    return None if found >= least else f"the engine is {found:.1f} dB from the plain network, below {least:.0f} dB"


def psnr(a: Tensor, b: Tensor) -> float:
    """10 log10(4 / mean (a - b)²) in dB, for images in [-1, 1]."""
    return 10 * math.log10(4 / max((a - b).square().mean().item(), 1e-30))
