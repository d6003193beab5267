"""Choose the number of warps of a kernel: measured once per kernel, device and size bucket, then remembered.

Only the number of warps is tuned. Block sizes determine the partial sums, but warps never change a bit of the result,
since tuned kernels add in pairs (tests/kernels/test_triton_compile.py). Timing repeats a launch, which is harmless,
because no launch reads what it writes (tests/kernels/test_triton_launches.py).

    F2D_KERNELS_AUTOTUNE=0   use each launcher's rule of thumb instead
    F2D_KERNELS_CACHE        folder of the remembered choices, default ~/.cache/f2d_kernels
"""

import json
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from f2d_kernels.environment import variable

logger = logging.getLogger("f2d_kernels")
MAX_WARPS = 16

_chosen: dict[str, int] | None = None  # of this process, read from the file on first use
_known: dict[tuple, int] = {}  # the same of launches that were made before, by keys that take little time to build


def enabled() -> bool:
    value = variable("F2D_KERNELS_AUTOTUNE")
    return value is None or value.lower() not in ("0", "false", "no", "off")


def candidates(warps: int) -> list[int]:
    """Return the rule of thumb, and half, twice, a quarter and four times as many warps, within 1 to `MAX_WARPS`."""
    return [w for w in (warps, warps // 2, warps * 2, warps // 4, warps * 4) if 1 <= w <= MAX_WARPS]


def bucket(programs: int) -> int:
    """Round `programs` up to a power of two, so that sizes within a factor of two share a choice."""
    return 1 << max(programs - 1, 0).bit_length()


def key_of(kernel: Any, programs: int, device: str, arguments: tuple, constants: dict[str, Any]) -> str:
    """Return all that a choice depends on as text: kernel, device, Triton, size bucket, dtypes, constants."""
    module = kernel.fn.__module__.rsplit(".", 1)[-1]
    dtypes = [str(a.dtype).removeprefix("torch.") for a in _tensors(arguments)]
    fixed = [f"{name}={value}" for name, value in sorted(constants.items()) if name.isupper()]
    name = f"{module}.{kernel.fn.__name__}"
    return " ".join([name, device, f"triton-{triton.__version__}", f"n={bucket(programs)}", *dtypes, *fixed])


def launch_key(kernel: Any, programs: int, device: torch.device, arguments: tuple, constants: dict[str, Any]) -> tuple:
    """Return the facts of `key_of` as objects of this process, in 2 us instead of 16."""
    key: list[Any] = [id(kernel), device.index, (programs - 1).bit_length()]
    for argument in arguments:
        if isinstance(argument, Tensor):
            key.append(argument.dtype)
        elif argument is None:
            key.append(None)
        elif type(argument) is tuple:
            key.append(tuple([a.dtype if isinstance(a, Tensor) else None for a in argument]))
    key.extend([value for name, value in constants.items() if name.isupper()])
    return tuple(key)


def choose(key: str, warps: int, run: Callable[[int], None], time: Callable[[Callable[[], None]], float]) -> int:
    """Return the number of warps remembered under `key`. If there is none, time `candidates(warps)` and remember the
    fastest; the rule of thumb wins unless another is at least 3 % faster."""
    known = _load()
    if key not in known:
        times = {w: time(partial(run, w)) for w in candidates(warps)}
        best = min(times, key=times.__getitem__)
        known[key] = best if times[best] < 0.97 * times[warps] else warps
        _save(known)
    return known[key]


def tuned_warps(
    kernel: Any, programs: int, device: torch.device, arguments: tuple, constants: dict[str, Any], run: Callable
) -> int:
    """Return the number of warps for this launch. Nothing is timed while a CUDA graph is captured."""
    warps = constants["num_warps"]
    if device.type != "cuda" or not enabled():
        return warps
    quick = launch_key(kernel, programs, device, arguments, constants)
    if quick in _known:
        return _known[quick]
    name = torch.cuda.get_device_name(device).replace(" ", "-")
    key = key_of(kernel, programs, name, arguments, constants)
    if torch.cuda.is_current_stream_capturing():
        return _load().get(key, warps)
    chosen = choose(key, warps, run, lambda f: triton.testing.do_bench(f, warmup=5, rep=20, return_mode="median"))
    _known[quick] = chosen
    return chosen


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [t for v in values for t in _tensors(v)] if isinstance(values, (list, tuple)) else []


def _file() -> Path:
    folder = os.environ.get("F2D_KERNELS_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "f2d_kernels"
    return Path(folder).expanduser() / "autotune.json"


def _load() -> dict[str, int]:
    global _chosen
    if _chosen is None:
        _chosen = _read(_file())
    return _chosen


def _read(path: Path) -> dict[str, int]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("f2d_kernels: %s cannot be read (%s); kernels are timed again", path, error)
        return {}
    known = values if isinstance(values, dict) else {}
    return {k: v for k, v in known.items() if isinstance(v, int) and v in (1, 2, 4, 8, 16)}


def _save(known: dict[str, int]) -> None:
    """Merge with what other processes have written since. A folder that cannot be written gives a warning, no error."""
    path = _file()
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({**_read(path), **known}, indent=1, sort_keys=True))
        partial.replace(path)
    except OSError as error:
        logger.warning("f2d_kernels: the choices of the autotuner are not kept: %s", error)
