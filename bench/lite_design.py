"""`python -m bench.lite_design --data DIR VARIANT ...`: variants of f2d-lite trained for equal core-seconds.

One process, one thread. A budget counts the CPU time of this process: synthesis, forward, backward, optimiser and
average, but not validation. The learning rate is a cosine to zero over the budget. All variants start from one seed,
see the same sequence of samples and are validated on the same crops of photographs that are held out of training.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from f2d.data import Augment, Mixture, Sample, Source, finish, stack
from f2d.metrics import psnr
from f2d.nets.f2dnet.config import F2DNetConfig
from f2d.nets.cost import multiply_adds_per_pixel, parameter_count
from f2d.nets.f2dnet.network import F2DNet
from f2d.nets.models import PRESETS
from f2d.transport.restore import restore_tensor
from f2d.training.averaging import Average
from f2d.training.muon import Muon
from f2d.training.objectives import objective_of
from f2d.training.recipe import LossWeights

CATEGORIES = {
    "low": 1.0, "haze": 1.0, "rain": 1.3, "snow": 1.6, "low_haze": 1.0, "low_rain": 1.0, "low_snow": 1.0,
    "haze_rain": 1.0, "haze_snow": 1.0, "low_haze_rain": 1.0, "low_haze_snow": 1.0, "clear": 0.7,
}  # fmt: skip

CHOSEN = F2DNetConfig(
    stage_widths=(32, 64, 64, 64),
    blocks_per_stage=(3, 2, 1, 1),
    bottleneck_blocks=0,
    attention_heads=0,
    time_dim=64,
    frequency_dim=32,
    expert_width=16,
    enhancer_width=None,
    parser_widths=(32, 32, 48, 64),
    parser_decoder_widths=(32, 32, 16, 16),
    gate_noise=0.0,
    patch=2,
    head="affine",
    skips="add",
    upsampling="shuffle",
    experts="light",
    parser="detail",
    gate_scale=4.0,
)
LOSSES = {
    "reconstruction": 0.0, "frequency": 0.0, "classification": 0.0, "presence": 0.1, "maps": 0.5, "balance": 0.0,
    "gate_prior": 0.0, "map_target": "mask",
}  # fmt: skip
RUN: dict[str, Any] = {"optimizer": "muon", "rate": 1e-3, "crop": 64, "batch": 16, "one_call": 0.6}

# name -> (changes of the configuration, of the losses, of the run)
VARIANTS: dict[str, tuple[dict, dict, dict]] = {
    "chosen": ({}, {}, {}),
    "shipped": ({"__preset__": "f2d-lite"}, {"frequency": 0.001, "maps": 0.2, "__defaults__": True},
                {"optimizer": "adamw", "crop": 128, "batch": 8}),
    "shipped-muon": ({"__preset__": "f2d-lite"}, {"frequency": 0.001, "maps": 0.2, "__defaults__": True},
                {"crop": 128, "batch": 8}),
    "adamw": ({}, {}, {"optimizer": "adamw"}),
    "gates-sum-to-1": ({"gate_scale": 1.0}, {}, {}),
    "concat-skips": ({"skips": "concat"}, {}, {}),
    "bilinear-up": ({"upsampling": "bilinear"}, {}, {}),
    "attention": ({"attention_heads": 4}, {}, {}),
    "deep-experts": ({"experts": "deep", "expert_width": 32}, {}, {}),
    "encoder-parser": ({"parser": "encoder", "parser_widths": (16, 32, 48, 64)}, {}, {}),
    "residual-head": ({"head": "residual"}, {}, {}),
    "no-maps-loss": ({}, {"maps": 0.0}, {}),
    "maps-1": ({}, {"maps": 1.0}, {}),
    "gated-maps": ({"presence_gates_maps": True}, {}, {}),
    "map-present-and-where": ({}, {"map_target": "spatial"}, {}),
    "all-losses": ({}, {"reconstruction": 0.1, "frequency": 0.001, "classification": 0.01, "balance": 0.01,
                        "gate_prior": 0.02}, {}),
    "one-call-0.9": ({}, {}, {"one_call": 0.9}),
    "one-call-1": ({}, {}, {"one_call": 1.0}),
    "crop-96": ({}, {}, {"crop": 96, "batch": 8}),
    "crop-48": ({}, {}, {"crop": 48, "batch": 32}),
    "wider": ({"stage_widths": (40, 72, 96, 96)}, {}, {}),
    "deeper": ({"blocks_per_stage": (3, 2, 2, 2)}, {}, {}),
    "narrow-parser": ({"parser_widths": (16, 32, 48, 64)}, {}, {}),
    "no-experts": ({"__no_experts__": True}, {}, {}),
}  # fmt: skip


def changed(name: str) -> tuple[F2DNetConfig, LossWeights, dict[str, Any]]:
    """(network, losses, run) of a variant."""
    network, losses, run = (dict(part) for part in VARIANTS[name])
    preset = network.pop("__preset__", None)
    network.pop("__no_experts__", None)
    config: Any = PRESETS[preset] if preset else CHOSEN
    weights = LossWeights(**losses) if losses.pop("__defaults__", False) else LossWeights(**{**LOSSES, **losses})
    return replace(config, **network), weights, {**RUN, **run}


def split(data: Path, seed: int, held_out: int, factors: tuple[str, ...]) -> tuple[Mixture, list[Sample]]:
    """(training data, validation crops of 128x128 in all categories)."""
    source = Source(".", layout="clean", categories=CATEGORIES)
    return Mixture([source], data, factors, Augment(), seed).split(held_out, 128)


def train(name: str, data: Path, seconds: float, seed: int, validate_every: float, out: Path | None) -> dict[str, Any]:
    """One variant: its sizes, steps, pixels a core-second, and validation rows."""
    config, weights, run = changed(name)
    torch.manual_seed(seed)
    net = F2DNet(config).train().to(memory_format=torch.channels_last)
    if "__no_experts__" in VARIANTS[name][0]:
        for p in net.experts.parameters():
            p.requires_grad_(False)
    average, objective = Average(net, 0.998), objective_of(net, weights, run["one_call"])
    rate, betas = run["rate"], (0.9, 0.99)
    if run["optimizer"] == "muon":
        optimizer: torch.optim.Optimizer = Muon(net.parameters(), lr=rate, betas=betas, weight_decay=1e-4)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=betas, weight_decay=1e-4)
    mixture, held_out = split(data, seed, 240, config.factors)
    spent, step, made, rows, next_row = 0.0, 0, 0.0, [], validate_every
    while spent < seconds:
        begin = time.process_time()
        keys = [(step * run["batch"] + b, run["crop"]) for b in range(run["batch"])]
        batch = finish(stack([mixture[key] for key in keys]), config.factors)
        made += time.process_time() - begin
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        with torch.autocast("cpu", torch.bfloat16):
            loss = objective(net, batch).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(net)
        step += 1
        spent += time.process_time() - begin
        if spent >= next_row or spent >= seconds:
            next_row += validate_every
            rows.append({"seconds": round(spent), "step": step, **validation(average.module, held_out, config.factors)})
            print(name, json.dumps(rows[-1]), flush=True)
    if out is not None:
        average.module.save_pretrained(out / name)
    return {
        "variant": name, "seed": seed, "steps": step, "seconds": round(spent), "synthesis": round(made / spent, 3),
        "pixels_per_second": round(step * run["batch"] * run["crop"] ** 2 / spent),
        "parameters": parameter_count(config), "multiply_adds": round(multiply_adds_per_pixel(config)), "rows": rows,
    }  # fmt: skip


@torch.no_grad()
def validation(net: Any, held_out: list[Sample], factors: tuple[str, ...]) -> dict[str, Any]:
    """Gain in dB over the degraded crops, PSNR by category, change of clear ones in grey levels, maps' correlations."""
    net = net.eval()
    scores: dict[str, list[float]] = {}
    inputs, clear, maps, masks = [], [], [], []
    for at in range(0, len(held_out), 24):
        samples = held_out[at : at + 24]
        batch = finish(stack(samples), factors)
        y = batch.degraded * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            restored = ((restore_tensor(net, y, steps=1, sampler="MC", seed=0) + 1) / 2).clamp(0, 1)
            found = net.analyse(y).maps
        for b, value in enumerate(psnr(restored, batch.clean).tolist()):
            if batch.categories[b] == "clear":
                clear.append((restored[b] - batch.clean[b]).abs().mean().item() * 255)
            else:
                scores.setdefault(batch.categories[b], []).append(value)
                inputs.append(psnr(batch.degraded[b : b + 1], batch.clean[b : b + 1]).item())
                maps.append(found[b].float())
                masks.append(batch.maps[b].float())
    values = [value for column in scores.values() for value in column]
    means = {category: round(sum(column) / len(column), 2) for category, column in scores.items()}
    gain = sum(values) / len(values) - sum(inputs) / len(inputs)
    return {
        "gain": round(gain, 3), "clear": round(sum(clear) / max(1, len(clear)), 2), **means,
        "maps": correlations(torch.stack(maps), torch.stack(masks), factors),
    }  # fmt: skip


def correlations(maps: Tensor, masks: Tensor, factors: tuple[str, ...]) -> dict[str, float]:
    """Mean over the pictures with a factor of the Pearson correlation of its map with its mask."""
    found = {}
    for k, factor in enumerate(factors):
        there = masks[:, k].flatten(1).amax(1) > 0
        a, b = (x[there, k].flatten(1) - x[there, k].flatten(1).mean(1, keepdim=True) for x in (maps, masks))
        r = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-9)
        found[factor] = round(r.mean().item(), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.lite_design", description=__doc__)
    parser.add_argument("variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--seconds", type=float, default=300, help="core-seconds of each variant")
    parser.add_argument("--validate-every", type=float, default=100, help="core-seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keep averaged weights in OUT/VARIANT")
    parser.add_argument("--json", type=Path, help="append a row of JSON per variant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.variants:
        row = train(name, options.data, options.seconds, options.seed, options.validate_every, options.out)
        print(json.dumps({k: v for k, v in row.items() if k != "rows"}), flush=True)
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
