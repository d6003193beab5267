"""csrc/*.h and the bodies of the CUDA kernels, compiled for the host: what a GPU thread computes, callable from
tests."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("c++") or shutil.which("g++")
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
# kinds of kernels: vectors of planes of any dtype, channels_last vectors, elements in float and in double; vectors of
# planes, and of images [H,W,3], of one dtype: float32 or bfloat16
PLANAR, CHANNELS_LAST, FLOAT, DOUBLE, ONE_TYPE, TRIPLES = range(6)


class Driver:
    """The compiled driver; arrays go in as numpy, images as torch tensors of any strides and dtype."""

    def __init__(self, folder: Path, flags: list[str]):
        library = folder / "host_driver.so"
        source = ROOT / "tests" / "kernels" / "host_driver.cpp"
        base = [COMPILER, "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", f"-I{ROOT / 'csrc'}"]
        subprocess.run([*base, *flags, str(source), "-o", str(library)], check=True)
        self.library = ctypes.CDLL(str(library))

    def call(self, name: str, *arguments: object) -> None:
        def convert(a: object) -> object:
            if isinstance(a, np.ndarray):
                assert a.flags.c_contiguous
                return ctypes.c_void_p(a.ctypes.data)
            return ctypes.c_int64(a) if isinstance(a, int) else a

        getattr(self.library, f"driver_{name}")(*map(convert, arguments))

    def assembly_forward(self, kind, out, deltas, gates, maps=None, base=None, span=None):
        shape, flags, experts = _assembly_shape(out, deltas, gates)
        views = _ints(gate_view(gates), view(maps, "bkhw"), view(base), view(out), view(None))
        begin, end = span or (0, out.numel() // (4 if kind == CHANNELS_LAST else 1))
        self.call("assembly_forward", kind, begin, end, shape, flags, views, experts)

    def assembly_backward(self, kind, grad, deltas, gates, maps, d_deltas, d_maps) -> Tensor:
        """Fills d_deltas (a list like deltas) and d_maps; returns d_gates in float64."""
        shape, flags, experts = _assembly_shape(grad, deltas, gates)
        views = _ints(gate_view(gates), view(maps, "bkhw"), view(None), view(grad), view(d_maps, "bkhw"))
        shared = int(len(deltas) == 1 and deltas[0].dim() == 5 and deltas[0].shape[0] < grad.shape[0])
        d_gates = np.zeros(gates.shape)
        d_views = _ints(*map(view, d_deltas))
        self.call("assembly_backward", kind, shared, shape, flags, views, experts, d_views, d_gates)
        return torch.from_numpy(d_gates)

    def lognormal_forward(
        self, kind, out, x, mu, log_mean, log_std, noise=None, seed=None, position=(0, 0, 0), span=(0, -1)
    ):
        """position: (stream, top, left)."""
        arguments = _lognormal(out, x, mu, log_mean, log_std, noise, seed, position)
        self.call("lognormal_forward", kind, *span, *arguments)

    def lognormal_backward(self, kind, grad, x, mu, log_mean, log_std, noise, seed, position, d_x, d_mu, d_noise):
        """Fills d_x, d_mu and d_noise; returns the other two gradients in float64."""
        arguments = _lognormal(grad, x, mu, log_mean, log_std, noise, seed, position, d_x, d_mu, d_noise)
        sums = np.zeros((2, grad.shape[0]))
        self.call("lognormal_backward", kind, *arguments, sums[0], sums[1])
        return torch.from_numpy(sums)

    def transport_forward(self, kind, x_next, mu, arguments, position=(0, 0, 0), clamp=(-1.0, 1.0), span=(0, -1)):
        """arguments: x, deltas (a list), gates, maps, base, log_mean, log_std, anchor, noise, seed."""
        self.call("transport_forward", kind, *span, *_transport(arguments, position, clamp, x_next=x_next, mu=mu))

    def transport_backward(self, kind, fused, grad_x, grad_mu, arguments, position, clamp, d_deltas, **gradients):
        """Fills d_deltas (a list like deltas) and d_maps (both where `fused`), d_x, d_mu, d_noise, v; returns
        d_log_mean, d_log_std and d_gates in float64."""
        x, _, gates, *_ = arguments
        *described, noise, dtypes, bounds = _transport(
            arguments, position, clamp, grad_x=grad_x, grad_mu=grad_mu, **gradients
        )
        sums = [np.zeros(x.shape[0]), np.zeros(x.shape[0]), np.zeros(gates.shape)]
        views = _ints(*map(view, d_deltas))
        self.call("transport_backward", kind, int(fused), *described, views, noise, dtypes, bounds, *sums)
        return [torch.from_numpy(s) for s in sums]


def view(t: Tensor | None, dims: str | None = None) -> list[int]:
    """data, strides of b k c h w (0 where there is none), dtype: the launcher's View."""
    if t is None:
        return [0] * 7
    names = dims or ("bkchw" if t.dim() == 5 else "bchw")
    strides = {n: 0 if size == 1 else stride for n, size, stride in zip(names, t.shape, t.stride(), strict=True)}
    return [t.data_ptr(), *(strides.get(n, 0) for n in "bkchw"), DTYPES[t.dtype]]


def gate_view(gates: Tensor) -> list[int]:
    return view(gates, "bkc"[: gates.dim()])


def _ints(*views: list[int]) -> np.ndarray:
    return np.array([number for v in views for number in v], dtype=np.int64)


def _channels_inside(image: Tensor) -> bool:
    return image.shape[1] > 1 and image.stride(1) == 1 and image.shape[2] * image.shape[3] > 1


def _assembly_shape(image: Tensor, deltas: list[Tensor], gates: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    listed = deltas[0].dim() == 4
    flags = [listed, gates.dim() == 3, _channels_inside(image)]
    return _ints([*image.shape, gates.shape[1]]), _ints(flags), _ints(*map(view, deltas))


def _lognormal(image, x, mu, log_mean, log_std, noise, seed, position, *gradients):
    shape = _ints([*image.shape, _channels_inside(image)])
    gradients = gradients or (None, None, None)
    views = _ints(*map(view, (x, mu, noise, image)), view(log_mean, "b"), view(log_std, "b"), *map(view, gradients))
    source = [0, 0, 0] if seed is None else [seed.data_ptr(), len(seed) > 1, seed.stride(0)]
    return shape, views, _ints([*source, *position])


def _transport(arguments, position, clamp, d_maps=None, **images):
    x, deltas, gates, maps, base, log_mean, log_std, anchor, noise, seed = arguments
    shape, flags, experts = _assembly_shape(x, deltas, gates)
    names = ("x_next", "mu", "grad_x", "grad_mu", "d_x", "d_mu", "d_noise", "v")
    schedule = view(log_mean, "b"), view(log_std, "b")
    before = gate_view(gates), view(maps, "bkhw"), view(base), view(d_maps, "bkhw"), view(x), view(anchor), view(noise)
    views = _ints(*before, *schedule, *(view(images.get(name)) for name in names))
    assembled = deltas[0].dtype
    for tensor in (*deltas, *([] if base is None else [base])):
        assembled = torch.promote_types(assembled, tensor.dtype)
    target = torch.promote_types(assembled, (x if anchor is None else anchor).dtype)
    source = [0, 0, 0] if seed is None else [seed.data_ptr(), len(seed) > 1, seed.stride(0)]
    dtypes = _ints([DTYPES[assembled], DTYPES[target]])
    return shape, flags, views, experts, _ints([*source, *position]), dtypes, np.array(clamp, dtype=float)
