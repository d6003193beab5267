"""Skip experts that cannot change the result visibly, by a bound on what they can add to the prediction.

Let expert k end in F = SiLU(u), u_f = γ_f n_f + β_f with n = GN(h) measured on this image, Δ_c = Σ_f W_cf s_f F_f + b_c
with squeeze-excitation's s_f in (0, 1), and let it add gate · map(p) · Δ_c(p) at pixel p.

    1. |SiLU(u)| <= |u|, so |Δ_c(p)| <= Σ_f |W_cf γ_f| |n_f(p)| + Σ_f |W_cf β_f| + |b_c|.
    2. A group's N = (F / G) h w normalised values have mean 0 and Σ n² = N · variance / (variance + eps) <= N. So
       Σ_{f in group} n_f(p)² <= N at every pixel, and by Cauchy and Schwarz Σ_{f in group} |W_cf γ_f| |n_f(p)| <=
       ‖(W_cf γ_f)_{f in group}‖ √N.
    3. Hence |Δ_c(p)| <= A_c √N + B_c with A_c = Σ_groups ‖(W_cf γ_f)‖ and B_c = Σ_f |W_cf β_f| + |b_c|. For an affine
       head the prediction is G ⊙ y + O with |y| <= 1, and the bounds of gain and offset add up.
    4. One call of the network then changes mu by no more than gate · max map · (A √N + B), A and B taken at the worst
       channel, and 2 % more for the rounding of bf16 features.

The bound is rigorous but loose (a GN value of √N would be one bright pixel on black), so it only skips experts that the
gate or the map has turned off almost completely: about 1e-6 at 256x256. The moments must be measured on the pixels that
are counted. Over several calls the state changes as well; then the bound holds for each call.
"""

from typing import NamedTuple

from torch import Tensor

from f2d.nets.f2dnet.experts import Expert, LightExpert

# All skipped experts of a call together move the image by no more than a twentieth of an 8-bit level (2/255 in [-1,
# 1]): its 8-bit value stays, but where it lay that close to the edge between two levels.
TOLERANCE = 2 / 255 / 20
ROUNDING = 1.02


class ExpertBound(NamedTuple):
    """|Δ_c| <= per_root · √N + constant for every channel c, N values in a group of the last GroupNorm.

    per_root, constant: [C]; channels: those of one group.
    """

    per_root: Tensor
    constant: Tensor
    channels: int

    @classmethod
    def of(cls, expert: Expert | LightExpert) -> "ExpertBound":
        weight = expert.project_out.weight.detach().flatten(1).double()  # [C, F]
        norm, bias = expert.last_norm, expert.project_out.bias
        assert bias is not None
        scaled = (weight * norm.weight.detach().double()).unflatten(1, (norm.num_groups, -1))
        constant = (weight * norm.bias.detach().double()).abs().sum(dim=1) + bias.detach().double().abs()
        return cls(scaled.norm(dim=2).sum(dim=1).cpu(), constant.cpu(), scaled.shape[2])

    def largest(self, pixels: int, affine: bool) -> float:
        """The largest |Δ| in the units of the prediction (offset plus gain for an affine head), for h w = `pixels`."""
        per_channel = ROUNDING * (self.per_root * (self.channels * pixels) ** 0.5 + self.constant)
        if affine:  # [gain of each image channel, offset of each image channel]
            per_channel = sum(per_channel.chunk(2))
        return per_channel.max().item()


def experts_to_run(
    bounds: list[ExpertBound], gates: Tensor, maps: Tensor | None, pixels: int, affine: bool
) -> list[int]:
    """Return the indices of the experts that must run; the others together add at most `TOLERANCE` to the prediction.

    gates [B, K] with the strengths in them, maps [B, K, h, w] or None, pixels h w.
    """
    reach = gates.abs() if maps is None else gates.abs() * maps.amax(dim=(2, 3))
    worst = reach.amax(dim=0).tolist()  # over the batch
    moves = [w * bound.largest(pixels, affine) for w, bound in zip(worst, bounds, strict=True)]
    skipped, total = set(), 0.0
    for k in sorted(range(len(moves)), key=moves.__getitem__):
        total += moves[k]
        if total > TOLERANCE:
            break
        skipped.add(k)
    return [k for k in range(len(moves)) if k not in skipped]
