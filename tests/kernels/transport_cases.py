"""What the tests of transport_step share: its arguments, and how they are passed."""

import torch
from torch import Tensor

from f2d_kernels import expert_assembly

from .cases import lay_out, random

CLAMP = (-0.75, 1.0)


def inputs(batch, experts, channels, size, dtype=torch.float32, *, shared=False, per_channel=False, layout="contiguous",
           with_maps=True, with_base=True, with_anchor=True):  # fmt: skip
    """The nine arguments in the order of NAMES. No sum lies so near to a bound that 16 bits clamp another element."""
    map_layout = layout if layout != "channels_last" else "contiguous"
    deltas = lay_out(0.5 * random(1 if shared else batch, experts, channels, *size, seed=0), layout).to(dtype)
    gates = random(*((batch, experts, channels) if per_channel else (batch, experts)), seed=1, dtype=dtype)
    maps = lay_out(random(batch, experts, *size, seed=2, dtype=dtype), map_layout) if with_maps else None
    x, base, anchor, noise = (
        lay_out(random(batch, channels, *size, seed=s, dtype=dtype), layout) for s in (3, 4, 5, 6)
    )
    log_mean = (-1.5 * random(batch, seed=7).abs()).to(dtype)
    log_std = (0.5 * random(batch, seed=8).abs()).to(dtype)
    anchor = anchor if with_anchor else None
    if with_base:
        for _ in range(2):
            total = (x if anchor is None else anchor).double() + base.double()
            total = expert_assembly(deltas.double(), gates.double(), maps if maps is None else maps.double(), total)
            near = sum(((total - bound).abs() < 0.06) for bound in CLAMP) > 0
            base = lay_out((base + 0.25 * near).to(dtype), layout)
    return [x, deltas, gates, maps, base if with_base else None, log_mean, log_std, anchor, noise]


def call(function, leaves, sequence=False, **kwargs):
    x, deltas, gates, maps, base, log_mean, log_std, anchor, noise = leaves
    deltas = list(deltas) if sequence else deltas
    return function(
        x, deltas, gates, maps, base, log_mean, log_std, anchor=anchor, clamp=CLAMP, **({"noise": noise} | kwargs)
    )


def cotangents(arguments: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    x, deltas, _, _, base, _, _, anchor, _ = arguments
    images = [x if anchor is None else anchor, deltas, *([] if base is None else [base])]
    mu_dtype = images[0].dtype
    for image in images:
        mu_dtype = torch.promote_types(mu_dtype, image.dtype)
    dtypes = torch.promote_types(x.dtype, mu_dtype), mu_dtype
    return tuple(random(*x.shape, seed=90 + i, dtype=dtype) for i, dtype in enumerate(dtypes))
