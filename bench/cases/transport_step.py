"""x_next, mu = one step of the transport: assembly, clamp and transition, on the image (the paper's residual head)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.cases import expert_assembly as assembly
from bench.cases import lognormal_transition as transition
from bench.cases.stages import EXPERTS, stage_case
from bench.registry import Arguments, Case, Op, Traffic, draw, uniform
from f2d_kernels import expert_assembly, lognormal_transition, transport_step

# "mixed": the network under autocast passes bf16 predictions, and the state is float32
NAMES = {
    "paper/restore/1080x720/f32/seed": True,
    "paper/restore/1080x720/bf16/nhwc/seed": False,
    "paper/restore/512x512/bf16/mixed/seed": False,
    "paper/train/256x256/b8/f32/seed": True,
    "paper/train/512x512/b2/bf16/seed": False,
    "paper/restore/1080x720/f32/noise": True,
    "paper/restore/512x512/bf16/noise": False,
    "paper/train/256x256/b2/f32/noise": False,
}


def inputs(case: Case, device: torch.device) -> Arguments:
    """Draw mu well inside the clamp, and far outside in a tenth of the pixels, so that rounding crosses no bound."""
    batch, _, height, width = case.image
    mixed = case.options["mixed"]
    outside = (torch.rand(case.image, device=device) < 0.1) * 5
    x, noise = (draw(case.image, case, device).mul_(0.1) for _ in range(2))
    arguments = {
        "x": x.float() if mixed else x,
        "deltas": [draw(case.image, case, device).mul_(0.03) for _ in range(EXPERTS)],
        "gates": uniform((batch, EXPERTS), 0, 1, device).to(case.dtype),
        "maps": uniform((batch, EXPERTS, height, width), 0, 1, device).to(case.dtype),
        "base": draw(case.image, case, device).mul_(0.03).add_(outside),
        "log_mean": uniform((batch,), -0.2, 0, device),
        "log_std": uniform((batch,), 0.1, 0.4, device),
    }
    return arguments | ({"noise": noise} if case.variant == "noise" else {"seed": 7})


def _composed(assemble: Callable[..., Tensor], transit: Callable[..., Tensor]) -> Callable[..., Any]:
    def step(
        x: Tensor,
        deltas: list[Tensor],
        gates: Tensor,
        maps: Tensor,
        base: Tensor,
        log_mean: Tensor,
        log_std: Tensor,
        noise: Tensor | None = None,
        seed: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        mu = (x + assemble(deltas, gates, maps, base)).clamp(-1, 1)
        return transit(x, mu, log_mean, log_std, noise=noise, seed=seed), mu

    return step


two_ops = _composed(expert_assembly, lognormal_transition)


def forward(case: Case) -> Traffic:
    """(K + 4)·BCHW·e + K·BHW·e with a seed, one image more with noise: x, deltas, base, maps in, x_next and mu out."""
    state = case.image_bytes // case.dtype.itemsize * 4 if case.options["mixed"] else case.image_bytes
    given = int(case.variant == "noise")
    maps = case.batch * EXPERTS * case.plane_bytes
    read = (EXPERTS + 1 + given) * case.image_bytes + state + maps
    return Traffic(read, 2 * state, 2 * EXPERTS + 2 + given, 2)


def backward(case: Case) -> Traffic:
    """gx, gm, mu (for the clamp), deltas, maps (, noise) in; d_x, d_deltas, d_base, d_maps out."""
    given = int(case.variant == "noise")
    maps = case.batch * EXPERTS * case.plane_bytes
    read, written = (3 + EXPERTS + given) * case.image_bytes + maps, (EXPERTS + 2) * case.image_bytes + maps
    return Traffic(read, written, 2 * EXPERTS + 3 + given, 2 * EXPERTS + 2)


OP = Op(
    name="transport_step",
    cases=tuple(
        stage_case("transport_step", name, channels=3, level=None, quick=quick, mixed="mixed" in name)
        for name, quick in NAMES.items()
    ),
    inputs=inputs,
    ours=transport_step,
    exact=two_ops,
    eager={
        "sum": _composed(assembly.by_sum, transition.formula),
        "einsum": _composed(assembly.by_einsum, transition.formula),
        "loop": _composed(assembly.by_loop, transition.formula),
    },
    compiled="sum",
    published=_composed(assembly.published, transition.published),
    gradients=("x", "deltas", "gates", "maps", "base"),
    forward=forward,
    backward=backward,
    others={"two ops": two_ops},
    own_noise="log_std",
)
