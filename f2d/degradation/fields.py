"""Random draws, smooth fields and filters that the maps are made of. Images are [1, C, H, W], in [0, 1] unless said."""

import torch
import torch.nn.functional as F
from torch import Tensor

# an image's grey level as the published generator weighs it: it reads RGB as BGR
GREY = (0.114, 0.587, 0.299)


class Draws:
    """Random numbers that depend on (seed, name) alone, drawn on the CPU so that a GPU makes the same picture.

    Every quantity has its own stream: adding or leaving out one factor changes no other factor's parameters.
    """

    def __init__(self, seed: int, name: str, device: torch.device):
        # a 64-bit mix of both, so that neighbouring seeds and names share nothing
        # the mix loses the seed's bit 63: seeds below 0 or from 2^63 up step aside of those that would share it
        seed += (seed >> 63) * 0xD1B54A32D192ED03
        mixed = (seed * 0x9E3779B97F4A7C15 + int.from_bytes(name.encode()[:8], "little")) & (2**64 - 1)
        mixed = (mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
        self.generator = torch.Generator().manual_seed(mixed - 2**63)
        self.device = device

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=self.generator).item()

    def choice(self, probability: float) -> bool:
        return torch.rand(1, generator=self.generator).item() < probability

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)


def grey(image: Tensor) -> Tensor:
    """[1,1,H,W]: 0.114 R + 0.587 G + 0.299 B."""
    return (image * image.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def power(base: Tensor, exponent: float) -> Tensor:
    """base^exponent for base >= 0, exponent > 0 (or any exponent where base > 0).

    torch.pow rounds otherwise in the last few elements of each thread's share, and so with the number of threads.
    """
    return torch.exp(exponent * base.log())


def smooth_field(draws: Draws, height: int, width: int, octaves: int = 4, falloff: float = 0.5) -> Tensor:
    """Sum of bicubically enlarged random grids of 2, 4, 8, ... cells, scaled to fill [0, 1]."""
    field = torch.zeros(1, 1, height, width, device=draws.device)
    for octave in range(octaves):
        cells = 2 ** (octave + 1) + 1
        grid = draws.rand(1, 1, cells, cells)
        field += falloff**octave * F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)
    return stretch(field)


def stretch(field: Tensor) -> Tensor:
    """Scaled so that the smallest value is 0 and the largest 1 (all zero where the field is constant)."""
    field = field - field.amin()
    return field / field.amax().clamp(min=1e-6)


def box(image: Tensor, size: int) -> Tensor:
    """Mean over a size x size window, of the pixels of it that lie inside the image.

    For an even size the window reaches one pixel further up and left: box22 covers -11..10.
    """
    height, width = image.shape[-2:]
    before, after = size // 2 + 1, size - size // 2
    # running sums cost the same for every size; in float64 a difference of two of them loses nothing that float32 shows
    sums = F.pad(image.double(), (before, after, before, after)).cumsum(-2)
    sums = (sums[..., size : size + height, :] - sums[..., :height, :]).cumsum(-1)
    sums = sums[..., size : size + width] - sums[..., :width]
    rows, columns = (_pixels_inside(length, size, image.device) for length in (height, width))
    return (sums / (rows[:, None] * columns)).to(image.dtype)


def _pixels_inside(length: int, size: int, device: torch.device) -> Tensor:
    """[length]: how many of the `size` pixels of a window around each pixel lie inside."""
    positions = torch.arange(length, device=device)
    return (positions + size - size // 2).clamp(max=length) - (positions - size // 2).clamp(min=0)


def guided_filter(guide: Tensor, image: Tensor, size: int, eps: float) -> Tensor:
    """q = mean(a) · guide + mean(b), a = cov(guide, image) / (var(guide) + eps), b = mean(image) - a · mean(guide).

    Source: He, Sun, Tang, "Guided image filtering" (ECCV 2010).
    """
    moments = box(torch.cat([guide, image, guide * image, guide * guide], dim=1), size)
    mean_guide, mean_image, mean_product, mean_square = moments.split(1, dim=1)
    a = (mean_product - mean_guide * mean_image) / (mean_square - mean_guide**2 + eps)
    b = mean_image - a * mean_guide
    mean_a, mean_b = box(torch.cat([a, b], dim=1), size).split(1, dim=1)
    return mean_a * guide + mean_b


def convolve(canvas: Tensor, kernel: Tensor) -> Tensor:
    """canvas [1,1,H+h-1,W+w-1] with a kernel [h,w] -> [1,1,H,W]: no border is made up, the canvas brings it.

    By FFT: 0.6 ms at 128² where a direct 37x37 convolution of one channel takes 5.
    """
    size = canvas.shape[-2:]
    a, b = torch.fft.rfft2(canvas), torch.fft.rfft2(kernel, size)
    # the complex product spelled out: torch's own rounds otherwise where threads divide the array
    product = torch.complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)
    return torch.fft.irfft2(product, size)[..., kernel.shape[0] - 1 :, kernel.shape[1] - 1 :]


def canvas_for(kernel: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Shape of the canvas that `convolve` turns into [1,1,height,width]."""
    return 1, 1, height + kernel.shape[0] - 1, width + kernel.shape[1] - 1


def line_kernel(length: float, angle: float, width: float, device: torch.device) -> Tensor:
    """[h,h], sum 1: a soft line `length` pixels long, about `width` thick, at `angle` radians from vertical."""
    radius = max(1, int(length / 2 + 1.5 * width))
    steps = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    rows, columns = steps[:, None], steps[None]
    angle_t = torch.tensor(angle)
    along = rows * angle_t.cos() + columns * angle_t.sin()
    across = columns * angle_t.cos() - rows * angle_t.sin()
    kernel = torch.exp(-((across / width) ** 2)) * (along.abs() - length / 2).neg().sigmoid()
    return kernel / kernel.sum()
