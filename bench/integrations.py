"""`python -m bench.integrations`: the adapters against the way their methods are published, and `accelerate`.

A step per row, on images of 3x512x512 in float32 (the mixtures on features): plain PyTorch as the methods'
repositories write it (the schedule looked up, a handful of elementwise passes, `randn_like`) beside one call of
`f2d_kernels.integrations`. Nothing is timed before both agree to 1e-5 on given noise. The two take turns on buffers
larger than the last cache. Then whole networks before and after `accelerate`: difference, time of a forward, peak
memory of a training step.
"""

import argparse
import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.environment import environment
from bench.memory import keep_freed_memory, peak_bytes
from bench.timing import interleaved, sets_needed
from f2d.nets.resflow.unet import UNet
from f2d_kernels import accelerate, modules
from f2d_kernels.integrations import (
    DDIM,
    IRSDE,
    FoD,
    ResidualDiffusion,
    ResShift,
    channel_gates,
    mixture_of_experts,
    prompt_mixture,
)

CPU = torch.device("cpu")
SIZE = (1, 3, 512, 512)
T = 100
SEED = 7


@dataclass(frozen=True)
class Row:
    """published, ours: (*tensors, noise, or None to draw it) -> a tensor; shapes: of the tensors."""

    name: str
    published: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]
    random: bool = True


def source(noise: Tensor | None) -> dict[str, Any]:
    return {"seed": SEED} if noise is None else {"noise": noise}


def like(x: Tensor, noise: Tensor | None) -> Tensor:
    return torch.randn_like(x) if noise is None else noise


def mean_reverting(t: int = 40) -> Iterator[Row]:
    process = IRSDE(10, T)
    place = torch.arange(T + 3, dtype=torch.float64) / (T + 2)
    level = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
    rate = (1 - (level / level[0])[1:-1]).float()
    total, spread = rate.cumsum(0) - rate[0], 10 / 255
    dt = -1 / total[-1] * math.log(0.005)
    sigma, sigma_bar = (spread**2 * 2 * rate).sqrt(), (spread**2 * (1 - torch.exp(-2 * total * dt))).sqrt()

    def sde(x: Tensor, mu: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        score = -predicted / sigma_bar[t]
        drift = (rate[t] * (mu - x) - sigma[t] ** 2 * score) * dt
        return x - drift - sigma[t] * (like(x, noise) * dt.sqrt())

    def posterior(x: Tensor, mu: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        clean = (x - mu - sigma_bar[t] * predicted) * torch.exp(total[t] * dt) + mu
        a, b, c = (torch.exp(-v * dt) for v in (rate[t], total[t], total[t - 1]))
        mean = a * (1 - c**2) / (1 - b**2) * (x - mu) + c * (1 - a**2) / (1 - b**2) * (clean - mu) + mu
        variance = (1 - a**2) * (1 - c**2) / (1 - b**2)
        return mean + torch.exp(0.5 * torch.log(variance)) * spread * like(x, noise)

    def state(x_0: Tensor, mu: Tensor, noise: Tensor | None) -> Tensor:
        return mu + (x_0 - mu) * torch.exp(-total[t] * dt) + like(x_0, noise) * sigma_bar[t]

    for kind, published in (("sde", sde), ("posterior", posterior)):
        ours = partial(lambda x, mu, p, n, kind: process.step(x, mu, p, t, kind, **source(n)), kind=kind)
        yield Row(f"IR-SDE {kind}", published, ours, (SIZE,) * 3)
    yield Row("IR-SDE state", state, lambda x, mu, n: process.sample(x, mu, t, **source(n)), (SIZE,) * 2)


def forward_only(t: int = 40) -> Iterator[Row]:
    theta, sigma2, dt = torch.linspace(0.01, 0.2, T), torch.linspace(0.02, 0.001, T), 0.5
    sigma = sigma2.sqrt()
    mean_bar = torch.cat([torch.zeros(1), -(theta + sigma2 / 2).cumsum(0) * dt])
    std_bar = torch.cat([torch.zeros(1), (sigma2.cumsum(0) * dt).sqrt()])
    process = FoD(theta, sigma2, dt)

    def markov(x: Tensor, flow: Tensor, noise: Tensor | None) -> Tensor:
        mu = x + flow
        log = -(theta[t] + 0.5 * sigma[t] ** 2) * dt + sigma[t] * math.sqrt(dt) * like(x, noise)
        return mu + (x - mu) * torch.exp(log)

    def non_markov(x: Tensor, flow: Tensor, x_0: Tensor, noise: Tensor | None) -> Tensor:
        mu = x + flow
        return mu + (x_0 - mu) * torch.exp(mean_bar[t + 1] + std_bar[t + 1] * like(x, noise))

    def state(x_0: Tensor, mu: Tensor, noise: Tensor | None) -> Tensor:
        return mu + (x_0 - mu) * torch.exp(mean_bar[t] + std_bar[t] * like(x_0, noise))

    yield Row("FoD MC", markov, lambda x, v, n: process.step(x, v, t, **source(n))[0], (SIZE,) * 2)
    ours = lambda x, v, x_0, n: process.step(x, v, t, "NMC", x_0, **source(n))[0]  # noqa: E731
    yield Row("FoD NMC", non_markov, ours, (SIZE,) * 3)
    yield Row("FoD state", state, lambda x_0, mu, n: process.sample(x_0, mu, t, **source(n)), (SIZE,) * 2)


def extract(table: Tensor, t: Tensor, x: Tensor) -> Tensor:
    return table.gather(0, t).reshape(-1, 1, 1, 1)


def residual(t: int = 60, s: int = 50) -> Iterator[Row]:
    a, b = torch.linspace(0.01, 1, T), torch.linspace(0.01, 0.5, T).sqrt()
    still, noisy = ResidualDiffusion(a, b, [t, s]), ResidualDiffusion(a, b, [t, s], eta=1.0)
    batch = torch.full((1,), t)

    def rddm(x: Tensor, res: Tensor, predicted: Tensor, noise: Tensor | None) -> Tensor:
        variance = (b[t] ** 2 - b[s] ** 2) * b[s] ** 2 / b[t] ** 2
        mean = x - (a[t] - a[s]) * res - (b[t] - (b[s] ** 2 - variance).sqrt()) * predicted
        return mean + variance.sqrt() * like(x, noise)

    def diffuir(x: Tensor, res: Tensor, degraded: Tensor, noise: Tensor | None) -> Tensor:
        predicted = (x - degraded - (extract(a, batch, x) - 1) * res) / extract(b, batch, x)
        return x - (a[t] - a[s]) * res - (b[t] - b[s]) * predicted

    yield Row("RDDM", rddm, lambda x, r, p, n: noisy.step(x, r, p, t, **source(n)), (SIZE,) * 3)
    yield Row("DiffUIR", diffuir, lambda x, r, y, n: still.step(x, r, None, t, y), (SIZE,) * 3, random=False)


def shifting(t: int = 8) -> Iterator[Row]:
    process = ResShift.exponential()
    eta = process._state_64[:, 1]
    last = torch.cat([torch.zeros(1, dtype=torch.float64), eta[:-1]])
    variance = 4 * last / eta * (eta - last)
    log = torch.log(torch.cat([variance[1:2], variance[1:]]))
    tables = [table.numpy() for table in (last / eta, 1 - last / eta, log)]
    batch = torch.full((1,), t)

    def look(table: Any, x: Tensor) -> Tensor:
        found = torch.from_numpy(table).to(device=x.device)[batch].float()
        return found[:, None, None, None].expand(x.shape)

    def published(x: Tensor, clean: Tensor, noise: Tensor | None) -> Tensor:
        mean = look(tables[0], x) * x + look(tables[1], x) * clean
        mask = (batch != 0).float().view(-1, 1, 1, 1)
        return mean + mask * torch.exp(0.5 * look(tables[2], x)) * like(x, noise)

    yield Row("ResShift", published, lambda x, x_0, n: process.step(x, x_0, t, **source(n)), (SIZE,) * 2)


def denoising(t: int = 60, s: int = 50) -> Iterator[Row]:
    a = (1 - torch.linspace(1e-3, 0.1, T)).cumprod(0)
    for name, eta in (("DDIM", 0.0), ("DDPM", 1.0)):
        process = DDIM(a, [t, s], eta)

        def published(x: Tensor, predicted: Tensor, noise: Tensor | None, eta: float = eta) -> Tensor:
            clean = (x - (1 - a[t]) ** 0.5 * predicted) / a[t] ** 0.5
            std = eta * ((1 - a[s]) / (1 - a[t]) * (1 - a[t] / a[s])) ** 0.5
            out = a[s] ** 0.5 * clean + (1 - a[s] - std**2) ** 0.5 * predicted
            return out + std * like(x, noise) if eta else out

        ours = partial(lambda x, p, n, process: process.step(x, p, t, **source(n)), process=process)
        yield Row(name, published, ours, (SIZE,) * 2, random=eta > 0)


def mixtures() -> Iterator[Row]:
    def experts(x: Tensor, outputs: Tensor, gates: Tensor, noise: None) -> Tensor:
        # the dispatcher of sparse mixtures: what the experts gave, one after the other, scattered back to its samples
        listed, batch = outputs.unbind(1), torch.arange(len(x)).repeat(outputs.shape[1])
        stitched = torch.cat(listed) * gates.T.reshape(-1, 1, 1, 1)
        return x + torch.zeros_like(x).index_add(0, batch, stitched)

    def prompts(param: Tensor, weights: Tensor, noise: None) -> Tensor:
        repeated = param.unsqueeze(0).repeat(len(weights), 1, 1, 1, 1, 1).squeeze(1)
        return torch.sum(weights[:, :, None, None, None] * repeated, dim=1)

    def gated(x: Tensor, mask: Tensor, base: Tensor, noise: None) -> Tensor:
        return x * mask[:, :, None, None] + base

    wide = (2, 48, 128, 128)
    ours = lambda x, o, g, n: mixture_of_experts(o.unbind(1), g, x)  # noqa: E731
    yield Row("MoCE-IR experts", experts, ours, (wide, (2, 4, *wide[1:]), (2, 4)), random=False)
    ours = lambda p, w, n: prompt_mixture(p, w)  # noqa: E731
    yield Row("PromptIR prompts", prompts, ours, ((1, 5, 64, 64, 64), (8, 5)), random=False)
    ours = lambda x, m, b, n: channel_gates(x, m, b)  # noqa: E731
    yield Row("InstructIR gates", gated, ours, (wide, wide[:2], wide), random=False)


def adapter_rows(samples: int, seconds: float) -> Iterator[list[str]]:
    families = (mean_reverting, forward_only, residual, shifting, denoising, mixtures)
    for row in (row for family in families for row in family()):
        drawn = [torch.randn(shape) for shape in row.shapes]
        noise = torch.randn(row.shapes[0]) if row.random else None
        expected = row.published(*drawn, noise)
        error = float((row.ours(*drawn, noise) - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        if not error <= 1e-5:
            yield [row.name, f"off by {error:.1e}", "", "", ""]
            continue
        sets = sets_needed(sum(x.nbytes for x in drawn), CPU)
        buffers = [[x.clone() for x in drawn] for _ in range(sets)]

        def running(call: Callable[..., Tensor], buffers: list = buffers) -> Any:
            return contextlib.nullcontext([partial(call, *inputs, None) for inputs in buffers])

        with torch.inference_mode():
            times = interleaved(
                {"published": partial(running, row.published), "ours": partial(running, row.ours)},
                CPU,
                samples,
                seconds,
            )
        theirs, mine = times["published"].median, times["ours"].median
        yield [row.name, f"{error:.0e}", f"{theirs:.2f}", f"{mine:.2f}", f"{theirs / mine:.1f}x"]


class Plain(nn.Module):
    """GroupNorm, modulation and SiLU as most U-Nets write them, with the parameters of a `GroupNormSiLU`."""

    def __init__(self, norm: modules.GroupNormSiLU):
        super().__init__()
        self.norm = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps)
        self.norm.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        if scale is not None:
            scale, shift = scale[:, :, None, None], shift[:, :, None, None]
            h = h * (1 + scale) + shift
        return F.silu(h)


def plain_unet(widths: tuple[int, ...]) -> nn.Module:
    """The U-Net of DDPM with a GroupNorm and a SiLU where ours has one op."""
    net = UNet(3, 3, widths, blocks=(2, 2, 2), attention_levels=0, groups=8, time_dim=128)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, modules.GroupNormSiLU):
                setattr(parent, name, Plain(child))
    net.mid_blocks[0].attention = nn.Identity()  # its matrix of all pixels would be most of the time
    for parameter in net.parameters():
        if float(parameter.detach().abs().sum()) == 0:  # zero-initialised convolutions would hide any difference
            nn.init.normal_(parameter, std=0.02)
    return net


def networks() -> Iterator[tuple[str, nn.Module, tuple]]:
    torch.manual_seed(0)
    for widths, size in (((16, 32, 32), 512), ((32, 64, 64), 256)):
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


def training_step(net: nn.Module, inputs: tuple) -> None:
    out = net(*inputs)
    (out if isinstance(out, Tensor) else out.sample).square().mean().backward()


def network_rows(rounds: int) -> Iterator[list[str]]:
    """The two take turns, and the ratio is the median of the rounds': what else the machine does meets both."""
    for name, plain, inputs in networks():
        fast = copy.deepcopy(plain.eval())
        report = accelerate(fast, verify=inputs)
        times: list[tuple[float, float]] = []
        with torch.inference_mode():
            for i in range(rounds + 1):
                turns = (plain, fast) if i % 2 else (fast, plain)
                found = {net: forward_milliseconds(net, inputs) for net in turns}
                times.append((found[plain], found[fast]))
        before, after = (median(column) for column in zip(*times[1:]))
        ratio = median(a / b for a, b in times[1:])
        peaks = [peak_bytes(partial(training_step, net, inputs), CPU) / 2**20 for net in (plain, fast)]
        counts = f"{len(report.fused)}, {len(report.left)}"
        milliseconds = [f"{before:.0f}", f"{after:.0f}", f"{ratio:.2f}x"]
        yield [name, counts, f"{report.difference:.0e}", *milliseconds, *(f"{peak:.0f}" for peak in peaks)]


def forward_milliseconds(net: nn.Module, inputs: tuple) -> float:
    start = time.perf_counter()
    net(*inputs)
    return (time.perf_counter() - start) * 1e3


def print_table(names: list[str], rows: Iterator[list[str]]) -> None:
    for cells in (names, ["---"] * len(names)):
        print("| " + " | ".join(cells) + " |")
    for cells in rows:
        print("| " + " | ".join(cells) + " |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.integrations", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=60, help="of each way")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for a step")
    parser.add_argument("--rounds", type=int, default=9, help="forward passes of each network")
    parser.add_argument("--only", choices=("adapters", "networks"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.only != "networks":
        columns = ["step, 1x3x512x512", "difference", "published, ms", "f2d_kernels, ms", "ratio"]
        print_table(columns, adapter_rows(options.samples, options.seconds))
        print()
    if options.only != "adapters":
        columns = [
            "network",
            "fused, left",
            "difference",
            "forward, ms",
            "after",
            "ratio",
            "training peak, MiB",
            "after",
        ]
        print_table(columns, network_rows(options.rounds))
        print()
    print(environment())


if __name__ == "__main__":
    main()
