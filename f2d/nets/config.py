"""Configuration of F²D-Net: everything that shapes the network and the process it was trained for."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from f2d.transport import TARGETS, LogNormalSchedule

HEADS = ("residual", "affine")


@dataclass(frozen=True)
class F2DNetConfig:
    """Sizes of every part; the defaults are the paper's model (23,771,627 parameters).

    factors: names of the degradations, one expert each; their order is that of gates, maps, weights and logits.
    stage_widths, blocks_per_stage: channels and residual blocks of the U-Net's stages, finest first.
    enhancer_width: channels of the brightness pre-enhancer, or None to leave it out.
    groups: of every GroupNorm; stage and expert widths are multiples of it.
    parser_widths: the first convolution, then one stride-2 convolution per entry;
    parser_decoder_widths: the first convolution, then one transposed convolution per entry.
    spatial_maps: False leaves the maps out (all ones): the image-level routing baseline.
    gate_noise: standard deviation of the noise on the gate's logits while training.
    patch: 1, or 2 to run everything on the pixel-unshuffled image at half the resolution.
    head: "residual": the prediction is v = shared + Σ alpha m Δ itself; "affine": that sum is a gain G and an offset B
    per pixel and v = G ⊙ y + B, which makes multiplicative degradations (haze, low light) easy for a small network.
    target, theta, sigma2, num_steps: what v predicts and the schedule of the process (see `f2d.transport`).

    ValueError for sizes that do not fit together.
    """

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

    def __post_init__(self):
        for field in fields(self):  # JSON has lists only; a frozen, hashable config has tuples only
            value = getattr(self, field.name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, field.name, tuple(value))

        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"F2DNetConfig: {message}")

        require(len(self.factors) > 0, "factors is empty; name at least one degradation")
        require(len(set(self.factors)) == len(self.factors), f"factors repeats a name: {self.factors}")
        require(
            len(self.stage_widths) == len(self.blocks_per_stage) > 0,
            f"{len(self.stage_widths)} stage_widths and {len(self.blocks_per_stage)} blocks_per_stage; "
            "give one of each per stage",
        )
        require(
            len(self.parser_widths) == len(self.parser_decoder_widths) > 0,
            f"{len(self.parser_widths)} parser_widths and {len(self.parser_decoder_widths)} parser_decoder_widths; "
            "the decoder must undo each stride of the encoder",
        )
        for name, width in [*(("stage_widths", w) for w in self.stage_widths), ("expert_width", self.expert_width)]:
            require(
                width > 0 and width % self.groups == 0, f"{name} has {width}, not a multiple of groups={self.groups}"
            )
        require(
            self.stage_widths[-1] % self.attention_heads == 0,
            f"the last of {self.stage_widths} is not a multiple of attention_heads={self.attention_heads}",
        )
        require(self.time_dim >= 4 and self.time_dim % 2 == 0, f"time_dim is {self.time_dim}; use an even number >= 4")
        require(self.patch in (1, 2), f"patch is {self.patch}; use 1 or 2")
        require(self.head in HEADS, f"head is {self.head!r}; use one of {HEADS}")
        require(self.target in TARGETS, f"target is {self.target!r}; use one of {TARGETS}")
        LogNormalSchedule.named(self.theta, self.sigma2, self.num_steps)  # its errors name what there is

    @property
    def image_channels(self) -> int:
        """Channels of one image inside the network: 3 p²."""
        return 3 * self.patch**2

    @property
    def head_channels(self) -> int:
        """Channels the shared head and each expert predict: 3 p², twice that for gain and offset."""
        return self.image_channels * (2 if self.head == "affine" else 1)

    @property
    def stride(self) -> int:
        """Sizes inside the network are padded to multiples of this."""
        return self.patch * 2 ** max(len(self.stage_widths) - 1, len(self.parser_widths) - 1)

    def to_dict(self) -> dict:
        """Plain types, ready for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> "F2DNetConfig":
        """The inverse of `to_dict`; ValueError names keys that no configuration has."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"F2DNetConfig has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def preset(cls, name: str) -> "F2DNetConfig":
        """A configuration by name; ValueError lists the names there are."""
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return PRESETS[name]


PRESETS = {
    "f2d-paper": F2DNetConfig(),
    "f2d-base": F2DNetConfig(
        stage_widths=(64, 96, 128, 192),
        blocks_per_stage=(2, 2, 2, 1),
        bottleneck_blocks=1,
        time_dim=128,
        frequency_dim=64,
        expert_width=64,
        enhancer_width=None,
        parser_widths=(32, 64, 96, 128),
        parser_decoder_widths=(64, 64, 32, 32),
        patch=2,
        head="affine",
    ),
    "f2d-lite": F2DNetConfig(
        stage_widths=(32, 64, 64, 64),
        blocks_per_stage=(3, 2, 1, 1),
        bottleneck_blocks=0,
        time_dim=64,
        frequency_dim=32,
        expert_width=32,
        enhancer_width=None,
        parser_widths=(16, 32, 48, 64),
        parser_decoder_widths=(32, 32, 16, 16),
        patch=2,
        head="affine",
    ),
}
