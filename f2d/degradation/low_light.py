"""Low light: a gamma curve on the illumination, plus sensor noise."""

from collections.abc import Sequence

from torch import Tensor

from f2d.degradation.fields import BatchDraws, Draws, box, column, grey, guided_filter, power, smooth_field

TINY = 1e-7
RANGES = {"gamma": (0.1, 10.0), "noise": (0.0, 1.0), "exposure": (0.0, 1.0)}  # ranges that `degrade` accepts


def draw_parameters(draws: Draws) -> dict[str, float]:
    """gamma ~ U(2, 3), standard deviation of the noise s ~ U(0.03, 0.08), the published ranges; exposure e = 1."""
    return {"gamma": draws.uniform(2, 3), "noise": draws.uniform(0.03, 0.08), "exposure": 1.0}


def draw_varied(draws: Draws) -> dict[str, float]:
    """Draw darkness from wider ranges: also by short exposure alone, as in LOL (Wei et al., BMVC 2018), and with less
    noise, so that a network does not recognise darkness by its noise."""
    return {
        "gamma": draws.uniform(1, 2.5),
        "noise": draws.uniform(0.0, 0.04),
        "exposure": 10 ** draws.uniform(-1, 0),
    }


def light_map(clean: Tensor, draws: BatchDraws) -> Tensor:
    """Build a light map [B,1,H,W] in [0, 1]: the brightest channel, averaged locally, times a smooth random field."""
    height, width = clean.shape[-2:]
    brightest = box(clean.amax(1, keepdim=True), max(3, min(height, width) // 16))
    return (brightest * (0.6 + 0.4 * smooth_field(draws, height, width, octaves=2))).clamp(0, 1)


def darken(
    clean: Tensor, light: Tensor, parameters: Sequence[dict[str, float]], draws: BatchDraws
) -> tuple[Tensor, Tensor]:
    """x = clip(e J / (L + 1e-7) · (L + 1e-7)^gamma + N(0, s²)), L = grey J, guided by the light map (3x3, eps 0.01).

    clean J: [B,3,H,W]; light: [B,1,H,W]; parameters: one dict per sample. Returns x and the map
    1 - e (L + 1e-7)^(gamma - 1), [B,1,H,W] in [0, 1]. The filter can make L slightly negative, so it is clamped at 0.
    """
    level = guided_filter(light, grey(clean), 3, 0.01).clamp(min=0) + TINY
    gamma, spread, exposure = (column([p[name] for p in parameters], clean.device) for name in RANGES)
    noise = spread * draws.randn(*clean.shape[1:])
    gain = exposure * power(level, gamma - 1)
    return (exposure * (clean / level * power(level, gamma)) + noise).clamp(0, 1), (1 - gain).clamp(0, 1)
