"""`python -m f2d_kernels.info`: versions, backends (and why any are missing), and how the compiled part was built."""

import importlib.metadata
import importlib.util
import os
import platform

import torch

import f2d_kernels
from f2d_kernels import compiled

VARIABLES = ("F2D_KERNELS_BACKEND", "F2D_KERNELS_SIMD", "F2D_KERNELS_AUTOTUNE", "F2D_KERNELS_CACHE", "TRITON_INTERPRET")


def report() -> str:
    """Return the facts that an issue about the kernels should contain, as aligned text."""
    rows = [
        ("f2d_kernels", f2d_kernels.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", torch.__version__),
        ("triton", importlib.metadata.version("triton") if importlib.util.find_spec("triton") else "not installed"),
        ("devices", ", ".join(_devices())),
        ("threads", str(torch.get_num_threads())),
    ]
    rows += [(f"backend {name}", status) for name, status in f2d_kernels.backends().items()]
    rows += [
        (f"build {key}", str(value)) for key, value in (compiled.build_info() or {"info": "no compiled part"}).items()
    ]
    rows += [(name, os.environ[name]) for name in VARIABLES if name in os.environ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _devices() -> list[str]:
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return [f"cpu ({torch.backends.cpu.get_cpu_capability()})", *gpus]


if __name__ == "__main__":
    print(report())
