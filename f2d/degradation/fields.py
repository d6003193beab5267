"""Random draws, smooth fields and filters that the maps are made of. Images are [B,C,H,W], in [0, 1] unless stated.

Whatever is computed for a batch gives each sample the bits it would have alone.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

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


class BatchDraws:
    """The draws of B samples, each from a stream of its own: a sample gets the numbers that it would get alone."""

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device):
        self._streams = [Draws(seed, name, torch.device("cpu")) for seed in seeds]
        self.device = device

    def __iter__(self) -> Iterator[Draws]:
        return iter(self._streams)

    def uniform(self, low: float, high: float) -> Tensor:
        """[B,1,1,1]."""
        return column([stream.uniform(low, high) for stream in self], self.device)

    def rand(self, *shape: int) -> Tensor:
        """[B,*shape]."""
        return torch.stack([stream.rand(*shape) for stream in self]).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        """[B,*shape]."""
        return torch.stack([stream.randn(*shape) for stream in self]).to(self.device)


def column(values: Sequence[float], device: torch.device) -> Tensor:
    """[B,1,1,1]: one number for each sample."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)


def grey(image: Tensor) -> Tensor:
    """[B,1,H,W]: 0.114 R + 0.587 G + 0.299 B."""
    return (image * image.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def power(base: Tensor, exponent: float | Tensor) -> Tensor:
    """base^exponent for base >= 0, exponent > 0 (or any exponent where base > 0).

    torch.pow rounds otherwise in the last few elements of each thread's share, and so with the number of threads.
    """
    return torch.exp(exponent * base.log())


def smooth_field(draws: BatchDraws, height: int, width: int, octaves: int = 4, falloff: float = 0.5) -> Tensor:
    """[B,1,H,W]: sum of bicubically enlarged random grids of 2, 4, 8, ... cells, scaled to fill [0, 1].

    Enlarging a grid G is a matrix product R G Cᵀ, and the sum over all grids is one more: [R₁G₁ R₂G₂ ...] [C₁ C₂ ...]ᵀ.
    """
    cells = [2 ** (octave + 1) + 1 for octave in range(octaves)]
    down, across = ([_bicubic(length, n).to(draws.device) for n in cells] for length in (height, width))
    grids = [falloff**octave * draws.rand(1, n, n).double() for octave, n in enumerate(cells)]
    # in float64, so that the order in which a product is summed up does not show in float32
    rows = torch.cat([matrix @ grid for matrix, grid in zip(down, grids, strict=True)], dim=-1)
    return stretch((rows @ torch.cat(across, dim=-1).T).float())


@lru_cache(maxsize=64)
def _bicubic(length: int, cells: int) -> Tensor:
    """[length,cells]: the weights of bicubic interpolation between `cells` corners, the outer ones on the borders."""
    return F.interpolate(torch.eye(cells)[None, None], (length, cells), mode="bicubic", align_corners=True)[0, 0].double()


def stretch(field: Tensor) -> Tensor:
    """Each sample scaled so that its smallest value is 0 and its largest 1 (all zero where it is constant)."""
    field = field - field.amin((1, 2, 3), keepdim=True)
    return field / field.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)


def box(image: Tensor, size: int) -> Tensor:
    """Mean over a size x size window, of the pixels of it that lie inside the image.

    For an even size the window reaches one pixel further up and left: box22 covers -11..10.
    """
    # in float64, so that the order of the sums does not show in float32
    means = image.double()
    for dim in (-2, -1):
        means = _window_mean(means, size, dim)
    return means.to(image.dtype)


def _window_mean(image: Tensor, size: int, dim: int) -> Tensor:
    """Mean over `size` pixels along one dimension, from sums over 1, 2, 4, ... of them: log(size) additions a pixel."""
    length, before, after = image.shape[dim], size // 2, size - 1 - size // 2
    run = F.pad(image, (before, after) if dim == -1 else (0, 0, before, after))
    sums, done, power = torch.zeros_like(image), 0, 1
    while True:
        if size & power:
            sums += run.narrow(dim, done, length)
            done += power
        if 2 * power > size:
            break
        run = run.narrow(dim, 0, run.shape[dim] - power) + run.narrow(dim, power, run.shape[dim] - power)
        power *= 2
    positions = torch.arange(length, device=image.device)
    inside = (positions + after + 1).clamp(max=length) - (positions - before).clamp(min=0)
    return sums / (inside if dim == -1 else inside[:, None])


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

    By FFT: 0.1 ms at 128² where a direct 37x37 convolution of one channel takes 5.
    """
    rows, columns = canvas.shape[-2:]
    size = _fast_length(rows), _fast_length(columns)
    a, b = torch.fft.rfft2(canvas, size), torch.fft.rfft2(kernel, size)
    # the complex product spelled out: torch's own rounds otherwise where threads divide the array
    product = torch.complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)
    return torch.fft.irfft2(product, size)[..., kernel.shape[0] - 1 : rows, kernel.shape[1] - 1 : columns]


@lru_cache
def _fast_length(length: int) -> int:
    """The next multiple of 8 without prime factors above 5: an FFT of 192² takes a quarter of one of 188²."""
    length += -length % 8
    rest = length
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return length if rest == 1 else _fast_length(length + 1)


def convolve_sparse(canvas: Tensor, kernel: Tensor) -> Tensor:
    """What `convolve` gives up to rounding, at a fraction of the cost where few pixels of the canvas are not zero."""
    if canvas.is_cuda:  # where finding them makes the host wait
        return convolve(canvas, kernel)
    # smaller weights than these would be lost in rounding beside the largest
    spread = (kernel > torch.finfo(kernel.dtype).eps * kernel.amax()).nonzero(as_tuple=True)
    drops = canvas[0, 0].nonzero(as_tuple=True)
    if len(drops[0]) * len(spread[0]) > canvas.numel():
        return convolve(canvas, kernel)
    (rows, columns), (height, width) = canvas.shape[-2:], kernel.shape
    stride = columns + width - 1
    places = (drops[0] * stride + drops[1])[:, None] + (spread[0] * stride + spread[1])
    values = canvas[0, 0][drops].double()[:, None] * kernel[spread]
    sums = torch.bincount(places.flatten(), values.flatten(), minlength=(rows + height - 1) * stride)
    return sums.view(1, 1, -1, stride)[..., height - 1 : rows, width - 1 : columns].to(canvas.dtype)


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
