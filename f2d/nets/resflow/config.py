"""Configuration of ResFlow: everything that shapes the network and the flow it was trained for."""

from dataclasses import dataclass
from typing import ClassVar

from f2d.checkpoints.saved import SavedConfig
from f2d.transport.resflow import ResFlow
from f2d.typed_fields import checked

OWNER = "ResFlowConfig"
ARCHITECTURE = "ResFlow"
INJECTIONS = ("adaptor", "concatenation", "addition")
HEADS = ("direct", "affine")
# Upper limits for values from files; without them, a damaged file would build modules for hours.
MOST_LEVELS = 8
LIMITS = {
    "channels": (1, 65536),
    "multipliers": (1, 64),
    "blocks": (1, 256),
    "groups": (1, 65536),
    "time_dim": (4, 65536),
    "adaptor_width": (1, 65536),
}


@dataclass(frozen=True)
class ResFlowConfig(SavedConfig):
    """Sizes of every part; the defaults are the U-Net of DDPM (Ho et al., NeurIPS 2020) with an adaptor.

    channels, multipliers: the U-Net has channels · multiplier channels on each level, finest first.
    blocks: residual blocks of each level on the way down; one more each on the way up.
    attention_levels: number of the coarsest levels with self-attention after each block (the bottleneck always has it).
    groups: number of groups of every GroupNorm; `channels` is a multiple of it.
    time_dim: width of the time embedding, an even number.
    patch: 1, or 2 to run everything on the pixel-unshuffled image at half the resolution.
    injection: how y_t enters, "adaptor", "concatenation" or "addition" (see `adaptor`); adaptor_width: its channels.
    head: "direct": the U-Net's output is the velocity, as in the paper; "affine": v_x = G ⊙ x_t + B per pixel, which
    makes multiplicative degradations (haze, low light) easy for a small network, as in F²D-Net's small presets.
    auxiliary, beta, gamma, distribution: the flow (see `f2d.transport.ResFlow`); with auxiliary "none" nothing is
    injected.

    Raises ValueError for a field of the wrong type or out of range, and for inconsistent sizes.
    """

    ARCHITECTURE: ClassVar[str] = ARCHITECTURE

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    attention_levels: int = 1
    groups: int = 32
    time_dim: int = 256
    patch: int = 1
    injection: str = "adaptor"
    adaptor_width: int = 32
    head: str = "direct"
    auxiliary: str = "entropy"
    beta: float = 10.0
    gamma: float = 1.75
    distribution: str = "gaussian"

    def __post_init__(self) -> None:
        check = checked(self, OWNER, LIMITS, {"head": HEADS, "injection": INJECTIONS})
        levels = len(self.multipliers)
        if levels != len(self.blocks) or not 1 <= levels <= MOST_LEVELS:
            raise ValueError(
                f"{OWNER}: multipliers and blocks must be equally long, 1 to {MOST_LEVELS}, "
                f"got {levels} and {len(self.blocks)}"
            )
        check("attention_levels", 0 <= self.attention_levels <= levels, f"0 to {levels}, the number of levels")
        check("channels", self.channels % self.groups == 0, f"a multiple of groups={self.groups}")
        check("time_dim", self.time_dim % 2 == 0, "an even number")
        check("patch", self.patch in (1, 2), "1 or 2")
        _ = self.transport  # raises errors that list the known names

    @property
    def factors(self) -> tuple[str, ...]:
        """Always empty: one velocity corrects all degradations."""
        return ()

    @property
    def transport(self) -> ResFlow:
        """The flow the network was trained for."""
        return ResFlow(self.auxiliary, self.beta, self.gamma, self.distribution)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def image_channels(self) -> int:
        """Channels of one image inside the network: 3 p²."""
        return 3 * self.patch**2

    @property
    def head_channels(self) -> int:
        """Output channels of the U-Net, p² times: those of the velocity, and 3 for the gain of an affine head."""
        return (self.transport.channels + 3 * (self.head == "affine")) * self.patch**2

    @property
    def stride(self) -> int:
        """Sizes inside the network are padded to multiples of this."""
        return self.patch * 2 ** (len(self.multipliers) - 1)


ResFlowConfig.PRESETS = PRESETS = {
    "resflow-paper": ResFlowConfig(),
    # multiples of 32 channels, which make bf16 convolutions fast: it trains at 237 k pixels per second and core, and
    # widths 40-48-48-64 with three blocks at 172 k; 1,622,852 parameters, 76,455 multiply-adds per pixel
    "resflow-lite": ResFlowConfig(
        channels=32,
        multipliers=(1, 2, 2, 2),
        blocks=(2, 1, 1, 1),
        groups=8,
        time_dim=64,
        patch=2,
        adaptor_width=16,
        head="affine",
    ),
}
