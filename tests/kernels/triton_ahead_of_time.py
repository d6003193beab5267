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

from f2d_kernels.triton import _reduce, expert_assembly, lognormal_transition

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

    def launch(kernel, programs, device, *arguments, **constants):
        built = kernel.warmup(*arguments, **constants, grid=(programs,), enable_fp_fusion=False)
        kernels.append(
            {
                "kernel": kernel.fn.__name__,
                "asm": built.asm.get("ptx") or built.asm["amdgcn"],
                "ttir": built.asm["ttir"],
                "resources": resources(built.asm["cubin"]) if "cubin" in built.asm else {},
            }
        )

    for module in (_reduce, expert_assembly, lognormal_transition):
        module.launch = launch
    CASES[case]()
    return kernels


if __name__ == "__main__":
    target, *chosen = sys.argv[1:]
    driver.set_active(Target(target))
    json.dump({case: compiled(case) for case in chosen or CASES}, sys.stdout)
