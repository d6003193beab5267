"""Compare one call of a perfect network with several; the clean value is -1/2 or +1/2, with equal odds."""

import torch
from torch import Tensor

from f2d.transport import LogNormalSchedule, transport

Y, MODES, SIDE, SEED = 0.1, (-0.5, 0.5), 100, 5
CALLS = (1, 4, 10, 100)


def conditional_mean(x: Tensor, t: int, schedule: LogNormalSchedule) -> Tensor:
    """``E[mu | x_t = x, x_0 = Y]``: modes weighted by the log-normal density of the way from Y to x."""
    if t == 0:
        return torch.full_like(x, sum(MODES) / 2)
    log_mean, log_std = schedule.transition(0, t)
    logs = []
    for mode in MODES:
        factor = (x.double() - mode) / (Y - mode)
        z = (factor.clamp_min(1e-30).log() - log_mean) / log_std
        logs.append(torch.where(factor > 0, -z.square() / 2 - factor.clamp_min(1e-30).log(), -1e9))
    logs = [log - torch.tensor(abs(Y - mode)).log() for log, mode in zip(logs, MODES)]
    weights = torch.softmax(torch.stack(logs), 0)
    return (weights[0] * MODES[0] + weights[1] * MODES[1]).to(x.dtype)


def compute() -> dict[int, Tensor]:
    """number of calls -> results [SIDE²], of as many pixels."""
    schedule = LogNormalSchedule.named("cosine", "linear", 100)
    y = torch.full((1, 1, SIDE, SIDE), Y)
    predict = lambda x, t: conditional_mean(x, t, schedule)  # noqa: E731
    return {n: transport(predict, y, schedule, steps=n, seed=SEED).flatten() for n in CALLS}


def draw(figure) -> None:
    for ax, (calls, results) in zip(figure.subplots(1, len(CALLS), sharex=True), compute().items()):
        ax.hist(results.numpy(), bins=torch.linspace(-0.7, 0.7, 57).numpy())
        ax.set(title=f"{calls} call{'s' * (calls > 1)}", xlabel="result", yticks=[])
        for mode in MODES:
            ax.axvline(mode, color="C1", linestyle="--", linewidth=0.8)
