"""Compiles every Triton kernel for GPUs that are not here and prints the machine code; run by test_triton_compile.py.

    python triton_ahead_of_time.py cuda:90 [case ...]

The launchers themselves choose the specializations: they run on meta tensors (a shape, strides, an aligned address and
no memory) with a driver that names the target, and each kernel is compiled where it would have been started. Prints one
JSON object, case -> list of {kernel, asm, ttir, resources}.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from f2d_kernels.triton import (
    _reduce,
    expert_assembly,
    expert_head,
    expert_head_backward,
    gaussian_transition,
    group_norm_silu,
    group_norm_silu_backward,
    lognormal_transition,
    transport_step,
    transport_step_backward,
)

F32, BF16, F64 = torch.float32, torch.bfloat16, torch.float64
B, C, H, W = 2, 3, 256, 256


class Target:
    """What the just-in-time compiler asks of a driver before a launch."""

    def __init__(self, name: str):
        backend, arch = name.split(":")
        self.target = GPUTarget("cuda", int(arch), 32) if backend == "cuda" else GPUTarget("hip", arch, 64)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def image(*shape, dtype=F32, channels_last=False):
    tensor = torch.empty(shape, dtype=dtype, device="meta")
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def assembly(dtype=F32, experts=4, channels=C, size=(H, W), *, stacked=True, shared=False, per_channel=False, **layout):
    batch = B if size != (1, 1) else 1

    def one():
        return image(batch, channels, *size, dtype=dtype, **layout)

    def many():
        if stacked:
            return [image(1 if shared else batch, experts, channels, *size, dtype=dtype)]
        return [one() for _ in range(experts)]

    gates = image(batch, experts, channels) if per_channel else image(batch, experts)
    maps = image(batch, experts, *size, dtype=dtype)
    expert_assembly.forward(one(), many(), gates, maps, one())
    expert_assembly.backward(one(), many(), gates, maps, many(), torch.empty_like(gates), torch.empty_like(maps))


def transition(dtype=F32, channels=C, size=(H, W), batch=B, seeded=True, left=0, per_sample=False, **layout):
    def one():
        return image(batch, channels, *size, dtype=dtype, **layout)

    def schedule():
        return image(batch)

    seed = torch.empty(batch if per_sample else 1, dtype=torch.int64, device="meta") if seeded else None
    noise = None if seeded else one()
    arguments = one(), one(), schedule(), schedule(), noise, seed, 3, 8, left
    lognormal_transition.forward(one(), *arguments)
    d_noise = None if seeded else one()
    lognormal_transition.backward(one(), *arguments, one(), one(), schedule(), schedule(), d_noise)


def gaussian(dtype=F32, terms=2, channels=C, size=(H, W), batch=B, noise="seeded", left=0, mixed=False, **layout):
    """noise: "seeded", "given" or "none"; mixed: the last term is float32 whatever `dtype` is."""

    def one(dtype=dtype):
        return image(batch, channels, *size, dtype=dtype, **layout)

    def many():
        return [one(F32 if mixed and j == terms - 1 else dtype) for j in range(terms)]

    std = None if noise == "none" else image(batch)
    given, seed = one() if noise == "given" else None, None
    if noise == "seeded":
        seed = torch.empty(1, dtype=torch.int64, device="meta")
    arguments = many(), image(batch, terms), std, given, seed, 3, 8, left
    gaussian_transition.forward(one(), *arguments)
    d_std, d_noise = std if std is None else image(batch), given if given is None else one()
    gaussian_transition.backward(one(), *arguments, many(), image(batch, terms), d_std, d_noise)


def group_norm(dtype=F32, channels=64, size=(H, W), groups=8, *, modulated=True, **layout):
    def one():
        return image(B, channels, *size, dtype=dtype, **layout)

    def pair():
        return image(B, channels, dtype=dtype)

    statistics = [image(B, groups, dtype=F64) for _ in range(2)]
    affine = [image(channels, dtype=dtype) for _ in range(2)]
    film = [pair(), pair()] if modulated else [None, None]
    mean = pair() if modulated else None
    group_norm_silu.forward(one(), mean, *statistics, one(), groups, *affine, *film, 1e-5)
    gradients = [
        one(),
        *(torch.empty_like(t) for t in affine),
        *(None if t is None else torch.empty_like(t) for t in film),
    ]
    group_norm_silu.backward(one(), mean, *statistics, one(), *affine, *film, *gradients)


def head(dtype=F32, experts=4, features=64, channels=C, size=(H, W), batch=B, *, optional=True, **layout):
    def many():
        return [image(batch, features, *size, dtype=dtype, **layout) for _ in range(experts)]

    def one():
        return image(batch, channels, *size, dtype=dtype, **layout)

    weight, gates = image(experts, channels, features), image(batch, experts)
    small = [image(experts, channels), image(batch, experts, features)] if optional else [None, None]
    maps = image(batch, experts, *size, dtype=dtype) if optional else None
    expert_head.forward(one(), many(), weight, *small, gates, maps, one() if optional else None)
    gradients = [None if t is None else torch.empty_like(t) for t in (weight, *small, gates, maps)]
    expert_head.backward(one(), many(), weight, *small, gates, maps, many(), *gradients)


def transport(
    dtype=F32, experts=4, channels=C, size=(H, W), batch=B, *, seeded=True, left=0, per_channel=False, anchor=False,
    state=None, **layout,
):  # fmt: skip
    """state: the dtype of x, where it is another one."""

    def one(dtype=dtype):
        return image(batch, channels, *size, dtype=dtype, **layout)

    def many():
        return [one() for _ in range(experts)]

    gates = image(batch, experts, channels) if per_channel else image(batch, experts)
    maps, state = image(batch, experts, *size, dtype=dtype), state or dtype
    seed = torch.empty(1, dtype=torch.int64, device="meta") if seeded else None
    arguments = (
        *(one(state), many(), gates, maps, one(), image(batch), image(batch), one() if anchor else None),
        *(-1.0, 1.0, None if seeded else one(), seed, 3, 8, left),
    )
    transport_step.forward(one(state), one(dtype if anchor else state), *arguments)
    transport_step.backward(
        *(one(state), one(dtype if anchor else state), *arguments),
        *(one(state), many(), torch.empty_like(gates), torch.empty_like(maps), one(), image(batch), image(batch)),
        None if seeded else one(),
    )


CASES = {
    "assembly": lambda: assembly(),
    "assembly bf16": lambda: assembly(BF16),
    "assembly K=8": lambda: assembly(experts=8),
    "assembly bf16 K=8": lambda: assembly(BF16, experts=8),
    "assembly separate K=1": lambda: assembly(experts=1, stacked=False),
    "assembly per channel": lambda: assembly(BF16, per_channel=True),
    "assembly shared": lambda: assembly(BF16, shared=True),
    "assembly C=64": lambda: assembly(BF16, channels=64),
    "assembly channels_last C=64": lambda: assembly(BF16, channels=64, stacked=False, channels_last=True),
    "assembly channels_last": lambda: assembly(stacked=False, channels_last=True),
    "assembly odd size": lambda: assembly(size=(33, 31)),
    "assembly one pixel": lambda: assembly(channels=1, size=(1, 1)),
    "assembly float64": lambda: assembly(F64),
    "assembly beyond int32": lambda: assembly(BF16, experts=2, size=(2**16, 2**16)),
    "transition": lambda: transition(),
    "transition bf16": lambda: transition(BF16),
    "transition noise": lambda: transition(seeded=False),
    "transition noise bf16": lambda: transition(BF16, seeded=False),
    "transition seeds": lambda: transition(BF16, per_sample=True),
    "transition window": lambda: transition(left=5),
    "transition odd size": lambda: transition(BF16, size=(33, 31)),
    "transition one pixel": lambda: transition(channels=1, size=(1, 1), batch=1),
    "transition channels_last": lambda: transition(BF16, channels_last=True),
    "transition float64": lambda: transition(F64, seeded=False),
    "transition beyond int32": lambda: transition(BF16, size=(2**16, 2**16), left=1),
    "gaussian": lambda: gaussian(),
    "gaussian bf16": lambda: gaussian(BF16),
    "gaussian bf16 4 terms": lambda: gaussian(BF16, terms=4, mixed=True),
    "gaussian noise bf16": lambda: gaussian(BF16, noise="given"),
    "gaussian without noise": lambda: gaussian(BF16, terms=3, noise="none"),
    "gaussian odd size": lambda: gaussian(BF16, size=(33, 31), left=5),
    "gaussian channels_last": lambda: gaussian(channels_last=True),
    "gaussian float64": lambda: gaussian(F64, noise="given"),
    "gaussian beyond int32": lambda: gaussian(BF16, size=(2**16, 2**16), left=1),
    "group norm": lambda: group_norm(),
    "group norm bf16": lambda: group_norm(BF16),
    "group norm channels_last": lambda: group_norm(BF16, channels_last=True, modulated=False),
    "group norm small groups": lambda: group_norm(size=(16, 32)),
    "group norm small groups bf16": lambda: group_norm(BF16, channels=128, size=(16, 16), channels_last=True),
    "group norm odd size": lambda: group_norm(channels=3, size=(33, 131), groups=1),
    "group norm one pixel": lambda: group_norm(channels=1, size=(1, 1), groups=1),
    "group norm float64": lambda: group_norm(F64),
    "group norm beyond int32": lambda: group_norm(BF16, channels=2, size=(2**16, 2**16), groups=1),
    "head": lambda: head(),
    "head bf16": lambda: head(BF16),
    "head C=24": lambda: head(channels=24),
    "head bf16 C=24": lambda: head(BF16, channels=24),
    "head bf16 C=64": lambda: head(BF16, channels=64),
    "head C=150": lambda: head(features=8, channels=150),
    "head channels_last": lambda: head(channels_last=True),
    "head channels_last bf16 C=24": lambda: head(BF16, channels=24, channels_last=True),
    "head bf16 K=8": lambda: head(BF16, experts=8, features=128),
    "head bare": lambda: head(BF16, optional=False),
    "head odd size": lambda: head(BF16, features=7, size=(33, 31)),
    "head one pixel": lambda: head(features=1, channels=1, size=(1, 1), batch=1),
    "head float64": lambda: head(F64),
    "head beyond int32": lambda: head(BF16, experts=2, features=8, size=(2**16, 2**16)),
}

CASES |= {
    "transport": lambda: transport(),
    "transport bf16": lambda: transport(BF16),
    "transport bf16 K=8": lambda: transport(BF16, experts=8),
    "transport bf16 K=9": lambda: transport(BF16, experts=9),
    "transport float32 state": lambda: transport(BF16, state=F32),
    "transport per channel anchor": lambda: transport(BF16, per_channel=True, anchor=True),
    "transport noise": lambda: transport(seeded=False),
    "transport C=64 per channel": lambda: transport(BF16, experts=2, channels=64, per_channel=True),
    "transport channels_last": lambda: transport(BF16, channels_last=True),
    "transport window": lambda: transport(BF16, left=5),
    "transport odd size": lambda: transport(size=(33, 31)),
    "transport one pixel": lambda: transport(experts=1, channels=1, size=(1, 1), batch=1),
    "transport float64": lambda: transport(F64, experts=2, seeded=False),
    "transport beyond int32": lambda: transport(BF16, experts=2, size=(2**16, 2**16), left=1),
}


def resources(cubin: bytes) -> dict[str, int]:
    """{REG, STACK, LOCAL, SHARED, ...} of the one kernel in `cubin`, as cuobjdump reports them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [tool, "--dump-resource-usage", path]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", report)}


def compiled(case: str) -> list[dict]:
    """The kernels that the launchers of `case` would have started, in their order."""
    kernels = []

    def launch(kernel, programs, device, *arguments, tuned=True, **constants):
        built = kernel.warmup(*arguments, **constants, grid=(programs,), enable_fp_fusion=False)
        kernels.append(
            {
                "kernel": kernel.fn.__name__,
                "tuned": tuned and "num_warps" in constants,
                "asm": built.asm.get("ptx") or built.asm["amdgcn"],
                "ttir": built.asm["ttir"],
                "resources": resources(built.asm["cubin"]) if "cubin" in built.asm else {},
            }
        )

    group_norm, transport = (group_norm_silu, group_norm_silu_backward), (transport_step, transport_step_backward)
    others = (_reduce, expert_assembly, expert_head, expert_head_backward, lognormal_transition, gaussian_transition)
    for module in (*others, *group_norm, *transport):
        module.launch = launch
    CASES[case]()
    return kernels


if __name__ == "__main__":
    target, *chosen = sys.argv[1:]
    driver.set_active(Target(target))
    json.dump({case: compiled(case) for case in chosen or CASES}, sys.stdout)
