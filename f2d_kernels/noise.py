"""Sources of noise of a stochastic op: a tensor, a seed, or a seed drawn from a generator."""

import torch
from torch import Tensor

from f2d_kernels._checks import check_dense, check_device, check_floating, check_shape, whole

MAX_STREAM = 65535
MAX_CHANNELS = 65536  # a counter holds c + 65536 · stream: one more channel would draw the noise of the next stream
MAX_POSITION = 2**31 - 1


def resolve_noise(
    op: str, x: Tensor, noise: Tensor | None, seed: int | Tensor | None, generator: torch.Generator | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return (noise, seed), exactly one of them None; seed becomes an int64 tensor [1] or [B] on the device of `x`.

    Raises ValueError when two sources are given, a shape, device or range does not fit, or noise would be drawn for
    more than 65536 channels; TypeError for wrong types.
    """
    check_one_source(op, noise, seed, generator)
    if noise is not None:
        check_floating(op, "noise", noise)
        check_device(op, "noise", noise, x.device)
        check_shape(op, "noise", noise, x.shape, "the shape of the result")
        return noise, None
    _check_channels(op, x)
    if seed is not None:
        return None, _seed_tensor(op, x, seed)
    where = x.device if generator is None else generator.device
    drawn = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=where, generator=generator)
    return None, drawn.to(x.device)


def check_one_source(op: str, noise: object, seed: object, generator: object) -> None:
    given = [n for n, v in (("noise", noise), ("seed", seed), ("generator", generator)) if v is not None]
    if len(given) > 1:
        raise ValueError(f"{op}: give one source of noise, not {' and '.join(given)} at once")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"{op}: generator must be a torch.Generator, got {type(generator).__name__}")


def check_source(op: str, x: Tensor, noise: Tensor | None, seed: Tensor | None, *position: int) -> None:
    """Check the source of noise of an op that was called without its public function; position: stream, top, left."""
    if (noise is None) == (seed is None):
        raise ValueError(f"{op}: give exactly one of noise and seed")
    if noise is not None:
        check_shape(op, "noise", noise, x.shape, "the shape of the result")
        return
    _check_channels(op, x)
    if seed is not None:
        _seed_tensor(op, x, seed)
    check_position(op, position[0], (position[1], position[2]))


def _check_channels(op: str, x: Tensor) -> None:
    if x.shape[1] > MAX_CHANNELS:
        raise ValueError(
            f"{op}: noise is drawn for at most {MAX_CHANNELS} channels, got C = {x.shape[1]}, so give noise as a tensor"
        )


def _seed_tensor(op: str, x: Tensor, seed: int | Tensor) -> Tensor:
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64:
            raise TypeError(f"{op}: a seed tensor must be int64, got {seed.dtype}")
        check_dense(op, "seed", seed)
        check_device(op, "seed", seed, x.device)
        if seed.dim() > 1 or seed.numel() not in (1, x.shape[0]):
            raise ValueError(
                f"{op}: seed must hold one element or one per sample (B = {x.shape[0]}), got shape {list(seed.shape)}"
            )
        return seed.reshape(-1).contiguous()  # every other element, or one for all: kernels read it densely
    seed = whole(op, "seed", seed, "an int or an int64 tensor")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{op}: seed must fit in 64 bits, got {seed}")
    # a fill on the device, so that no copy from the host stalls the stream
    return torch.full((1,), seed - 2**64 if seed >= 2**63 else seed, dtype=torch.int64, device=x.device)


def check_position(op: str, stream: int, window: tuple[int, int] | None) -> tuple[int, int, int]:
    """Return (stream, top, left) as ints, the last two 0 without a `window`.

    Raises TypeError for anything but whole numbers, and ValueError for numbers out of range.
    """
    stream = whole(op, "stream", stream)
    if not 0 <= stream <= MAX_STREAM:
        raise ValueError(f"{op}: stream must lie in 0..{MAX_STREAM}, got {stream}")
    if window is None:
        return stream, 0, 0
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise ValueError(f"{op}: window must be (top, left), got {window!r}")
    top, left = (whole(op, f"window's {name}", value) for name, value in zip(("top", "left"), window, strict=True))
    if not (0 <= top <= MAX_POSITION and 0 <= left <= MAX_POSITION):
        raise ValueError(f"{op}: window (top, left) must lie in 0..{MAX_POSITION}, got ({top}, {left})")
    return stream, top, left
