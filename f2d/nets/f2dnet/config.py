"""Configuration of F²D-Net: everything that shapes the network and the process it was trained for."""

import re
from dataclasses import dataclass, replace

from f2d.checkpoints.saved import SavedConfig
from f2d.transport import TARGETS, LogNormal, LogNormalSchedule
from f2d.typed_fields import checked

HEADS = ("residual", "affine")
DESIGNS = ("published", "light")
OWNER = "F2DNetConfig"
# Upper limits for values from files; without them, a damaged file would build modules for hours.
MOST_STAGES = 8
MOST_FACTORS = 64
LIMITS = {
    "stage_widths": (1, 65536),
    "blocks_per_stage": (1, 256),
    "bottleneck_blocks": (0, 256),
    "attention_heads": (0, 65536),
    "groups": (1, 65536),
    "time_dim": (4, 65536),
    "frequency_dim": (1, 65536),
    "expert_width": (1, 65536),
    "enhancer_width": (1, 65536),
    "enhancer_blocks": (0, 256),
    "parser_widths": (1, 65536),
    "parser_decoder_widths": (1, 65536),
    "num_steps": (1, 1_000_000),
}


@dataclass(frozen=True)
class F2DNetConfig(SavedConfig):
    """Sizes of every part; the defaults are the paper's model (23,771,627 parameters).

    design: "published", the paper's layers; or "light", chosen for small networks by a sweep at equal core-seconds
    (bench/results/lite-design.md). A light network adds its skip connections, upsamples by 1x1 convolution and pixel
    shuffle, and has no attention (attention_heads = 0); its experts have one dilated convolution, and its parser keeps
    the network's full resolution (parser_decoder_widths is empty).
    factors: names of the degradations, with one expert each, in the order of gates, maps, weights and logits.
    stage_widths, blocks_per_stage: channels and residual blocks of the U-Net's stages, finest first.
    enhancer_width: channels of the brightness pre-enhancer, or None for no enhancer. brightness_threshold: mean luma in
    [0, 1] at which its fixed gate is one half.
    groups: number of groups of every GroupNorm; stage and expert widths are multiples of it.
    parser_widths: channels of the first convolution (light: of all at full size), then of each stride-2 convolution.
    parser_decoder_widths: channels of the first convolution, then of each transposed convolution.
    spatial_maps: False replaces the maps by ones, the image-level routing baseline.
    gate_noise: standard deviation of the noise on the gate's logits while training.
    patch: 1, or 2 to run everything on the pixel-unshuffled image at half the resolution.
    head: "residual": the prediction is v = shared + Σ alpha m Δ itself; "affine": that sum is a gain G and an offset B
    per pixel and v = G ⊙ y + B, which makes multiplicative degradations (haze, low light) easy for a small network.
    target, theta, sigma2, num_steps: what v predicts and the schedule of the process (see `f2d.transport`).
    learned_schedule: whether this schedule adapts during training (see `f2d.transport.LearnedSchedule`).

    Raises ValueError for a field of the wrong type or out of range, and for inconsistent sizes.
    """

    design: str = "published"
    factors: tuple[str, ...] = ("low", "haze", "rain", "snow")
    stage_widths: tuple[int, ...] = (64, 128, 256, 256)
    blocks_per_stage: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck_blocks: int = 3
    attention_heads: int = 4
    groups: int = 8
    time_dim: int = 256
    frequency_dim: int = 128
    expert_width: int = 128
    enhancer_width: int | None = 64
    enhancer_blocks: int = 6
    brightness_threshold: float = 0.3
    parser_widths: tuple[int, ...] = (32, 64, 128, 128)
    parser_decoder_widths: tuple[int, ...] = (64, 64, 32, 32)
    spatial_maps: bool = True
    gate_noise: float = 0.3 / 4
    patch: int = 1
    head: str = "residual"
    target: str = "SFLOW"
    theta: str = "cosine"
    sigma2: str = "linear"
    num_steps: int = 100
    learned_schedule: bool = False

    def __post_init__(self) -> None:
        check = checked(self, OWNER, LIMITS, {"design": DESIGNS, "head": HEADS, "target": TARGETS})
        check("factors", len(self.factors) > 0, "a list of at least one name")
        if len(self.factors) > MOST_FACTORS:  # a message must not contain so long a list
            raise ValueError(f"{OWNER}: factors must be at most {MOST_FACTORS} names, got {len(self.factors)}")
        check("factors", len(set(self.factors)) == len(self.factors), "a list without duplicates")
        # the names become parts of file names
        plain = all(re.fullmatch(r"[\w-]+", name) for name in self.factors)
        check("factors", plain, "names of letters, digits, _ and -")
        pairs = [("stage_widths", "blocks_per_stage")]
        if self.design == "light":
            check("attention_heads", self.attention_heads == 0, "0 with design light")
            check("parser_decoder_widths", self.parser_decoder_widths == (), "empty with design light")
            check("parser_widths", 2 <= len(self.parser_widths) <= MOST_STAGES, f"2 to {MOST_STAGES} widths")
        else:
            check("attention_heads", self.attention_heads > 0, "1 to 65,536")
            pairs.append(("parser_widths", "parser_decoder_widths"))
        for one, other in pairs:
            counts = len(getattr(self, one)), len(getattr(self, other))
            if counts[0] != counts[1] or not 1 <= counts[0] <= MOST_STAGES:
                raise ValueError(
                    f"{OWNER}: {one} and {other} must be equally long, 1 to {MOST_STAGES}, "
                    f"got {counts[0]} and {counts[1]}"
                )
        for name, width in [*(("stage_widths", w) for w in self.stage_widths), ("expert_width", self.expert_width)]:
            if width % self.groups:
                raise ValueError(f"{OWNER}: {name} must hold multiples of groups={self.groups}, got {width}")
        if self.attention_heads and self.stage_widths[-1] % self.attention_heads:
            raise ValueError(
                f"{OWNER}: the last of {self.stage_widths} must be a multiple of attention_heads={self.attention_heads}"
            )
        check("time_dim", self.time_dim % 2 == 0, "an even number")
        check("brightness_threshold", 0 <= self.brightness_threshold <= 1, "a luma in [0, 1]")
        check("gate_noise", self.gate_noise >= 0, "a standard deviation >= 0")
        check("patch", self.patch in (1, 2), "1 or 2")
        _ = self.schedule  # raises errors that list the known names

    @property
    def schedule(self) -> LogNormalSchedule:
        """The schedule by its names; for a learned schedule, its initial state."""
        return LogNormalSchedule.named(self.theta, self.sigma2, self.num_steps)

    @property
    def transport(self) -> LogNormal:
        """The process of `schedule` with the network's prediction target."""
        return LogNormal(self.schedule, self.target)

    @property
    def image_channels(self) -> int:
        """Channels of one image inside the network: 3 p²."""
        return 3 * self.patch**2

    @property
    def head_channels(self) -> int:
        """Output channels of the shared head and of each expert: 3 p², or 6 p² for gain and offset."""
        return self.image_channels * (2 if self.head == "affine" else 1)

    @property
    def stride(self) -> int:
        """Sizes inside the network are padded to multiples of this."""
        return self.patch * 2 ** max(len(self.stage_widths) - 1, len(self.parser_widths) - 1)


_BASE = F2DNetConfig(
    design="light",
    stage_widths=(64, 128, 192, 256),
    blocks_per_stage=(3, 2, 2, 2),
    bottleneck_blocks=1,
    attention_heads=0,
    time_dim=128,
    frequency_dim=64,
    expert_width=32,
    enhancer_width=None,
    parser_widths=(32, 64, 96, 128),
    parser_decoder_widths=(),
    patch=2,
    head="affine",
)
_LITE = replace(
    _BASE,
    stage_widths=(32, 64, 64, 64),
    blocks_per_stage=(3, 3, 3, 3),
    bottleneck_blocks=0,
    time_dim=64,
    frequency_dim=32,
    expert_width=16,
    parser_widths=(32, 32, 48, 64),
)
F2DNetConfig.PRESETS = PRESETS = {"f2d-paper": F2DNetConfig(), "f2d-base": _BASE, "f2d-lite": _LITE}
