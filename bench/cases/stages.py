"""The stages of F²D-Net at which the ops run: sizes of the presets, and cases by the name of their stage.

The sizes are repeated here because the GPU machine lacks the packages that `f2d` imports; a test compares them with
`f2d.nets.f2dnet.config.PRESETS`.
"""

from dataclasses import dataclass
from typing import Any

import torch

from bench.registry import Case

EXPERTS = 4
GROUPS = 8


@dataclass(frozen=True)
class Preset:
    """The sizes of a preset. head: channels that the shared head and each expert predict. expert: an expert's features.
    stages: widths of the U-Net. patch: 2 if everything runs at half the resolution. stride: sizes are padded to
    multiples of it.
    """

    head: int
    expert: int
    stages: tuple[int, ...]
    patch: int
    stride: int

    def plane(self, height: int, width: int, level: int = 0) -> tuple[int, int]:
        """Return (height, width) of an image height x width inside the network, at a level of the U-Net."""
        padded = (-(-side // self.stride) * self.stride // self.patch for side in (height, width))
        h, w = padded
        return h >> level, w >> level


PRESETS = {
    "paper": Preset(head=3, expert=128, stages=(64, 128, 256, 256), patch=1, stride=8),
    "base": Preset(head=24, expert=32, stages=(64, 128, 192, 256), patch=2, stride=16),
    "lite": Preset(head=24, expert=16, stages=(32, 64, 64, 64), patch=2, stride=16),
}

# name -> (batch, image height, image width, training)
STAGES = {
    "restore/1080x720": (1, 720, 1080, False),
    "restore/512x512": (1, 512, 512, False),
    "restore/256x256": (1, 256, 256, False),
    "train/512x512/b2": (2, 512, 512, True),
    "train/256x256/b2": (2, 256, 256, True),
    "train/256x256/b8": (8, 256, 256, True),
}

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def stage_case(
    op: str, name: str, *, channels: int, level: int | None = 0, quick: bool = False, **options: Any
) -> Case:
    """Return the case of a name like "lite/restore/1080x720/bf16/nhwc/seed".

    A name has a preset, a key of STAGES, a dtype, and optionally "nhwc" (channels innermost in memory) and the variant,
    "seed" or "noise". Other words belong to the op. level: of the U-Net; None: the image itself.
    """
    preset, rest = name.split("/", 1)
    stage = next(stage for stage in STAGES if rest.startswith(stage + "/"))
    words = rest[len(stage) + 1 :].split("/")
    batch, height, width, train = STAGES[stage]
    if level is not None:
        height, width = PRESETS[preset].plane(height, width, level)
    return Case(
        op=op,
        name=name,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        dtype=next(DTYPES[word] for word in words if word in DTYPES),
        channels_last="nhwc" in words,
        variant=next((word for word in words if word in ("seed", "noise")), ""),
        train=train,
        quick=quick,
        options=options,
    )
