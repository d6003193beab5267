"""Schedules: what is left of a pixel's residual at each time, and how far samples of it lie apart."""

import torch

from f2d.transport import LogNormalSchedule

NAMES = {
    "cosine, linear (the paper's)": ("cosine", "linear"),
    "constant": ("constant", "constant"),
    "jsd": ("jsd", "jsd"),
}


def compute() -> dict:
    """label -> (t [T+1], the 5, 50 and 95 % quantiles of the residual factor [T+1, 3]), float64."""
    z = torch.tensor([-1.6448536269514722, 0.0, 1.6448536269514722], dtype=torch.float64)
    curves = {}
    for label, names in NAMES.items():
        schedule = LogNormalSchedule.named(*names)
        quantiles = (schedule.log_mean[:, None] + schedule.log_std[:, None] * z).exp()
        curves[label] = (torch.arange(schedule.num_steps + 1), quantiles)
    return curves


def draw(figure) -> None:
    axes = figure.subplots(1, 3, sharey=True)
    for ax, (label, (t, quantiles)) in zip(axes, compute().items()):
        ax.fill_between(t, quantiles[:, 0], quantiles[:, 2], alpha=0.3, label="5 to 95 % of samples")
        ax.plot(t, quantiles[:, 1], label="median, exp M")
        ax.set(title=label, xlabel="time t", yscale="log", ylim=(1e-4, 2))
    axes[0].set_ylabel("(x_t - mu) / (y - mu)")
    axes[0].legend(loc="lower left")
