"""Networks with group norm and SiLU in the usual notation, for `accelerate`."""

from collections.abc import Iterator

import torch
from torch import nn

from bench.plain_norms import with_plain_norms
from f2d.nets.resflow.unet import UNet


def plain_unet(widths: tuple[int, ...]) -> nn.Module:
    """Build the U-Net of DDPM with a GroupNorm and a SiLU in place of our op."""
    net = with_plain_norms(UNet(3, 3, widths, blocks=(2, 2, 2), attention_levels=0, groups=8, time_dim=128))
    net.mid_blocks[0].attention = nn.Identity()  # its matrix over all pixels would take most of the time
    for parameter in net.parameters():
        if float(parameter.detach().abs().sum()) == 0:  # zero-initialised convolutions would hide any difference
            nn.init.normal_(parameter, std=0.02)
    return net


def networks() -> Iterator[tuple[str, nn.Module, tuple]]:
    torch.manual_seed(0)
    for widths, size in (((16, 32, 32), 512), ((32, 64, 64), 256), ((32, 64, 64), 512)):
        image, what = torch.randn(1, 3, size, size), f"{'-'.join(map(str, widths))}, {size}x{size}"
        yield f"U-Net of DDPM, {what}", plain_unet(widths), (image, [], torch.tensor([3.0]))
        try:
            from diffusers import UNet2DModel
        except ImportError:
            continue
        for modulation in ("default", "scale_shift"):
            net = UNet2DModel(
                block_out_channels=widths,
                layers_per_block=2,
                down_block_types=("DownBlock2D",) * 3,
                up_block_types=("UpBlock2D",) * 3,
                norm_num_groups=8,
                add_attention=False,
                resnet_time_scale_shift=modulation,
            )
            yield f"diffusers UNet2DModel ({modulation}), {what}", net, (image, 3)
