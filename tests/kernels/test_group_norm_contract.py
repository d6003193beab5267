"""What group_norm_silu promises beyond numbers: PyTorch integration, memory, the same bits everywhere, errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from f2d_kernels import compiled, group_norm_silu

from .cases import DEVICE, lay_out
from .group_norm_cases import BACKENDS, SWEEP, inputs
from .support import running_on

ROOT = Path(__file__).parents[2]


def double_inputs() -> list[Tensor]:
    return [a.double().requires_grad_() for a in inputs(2, 4, (1, 3), torch.float32)]


@pytest.mark.parametrize("backend", SWEEP)
def test_gradcheck(backend):
    x, *parameters = double_inputs()
    fast = backend == "triton"  # one random direction instead of each element: interpreted, a backward pass takes 0.5 s
    with running_on(backend):
        assert torch.autograd.gradcheck(
            lambda x, *rest: group_norm_silu(x, 2, *rest, return_mean=True), (x, *parameters), fast_mode=fast
        )
        assert torch.autograd.gradcheck(lambda x: group_norm_silu(x, 2, None, None), (x,), fast_mode=fast)


def test_the_normalised_tensor_is_not_saved():
    """The backward pass keeps x and two numbers per group, of everything that is as large as x."""
    saved = []
    x, *parameters = [a.requires_grad_() for a in inputs(2, 4, (16, 16), torch.float32)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        group_norm_silu(x, 2, *parameters, return_mean=True)
    large = [t for t in saved if t.numel() >= x.numel()]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]
    assert sum(t.shape == (2, 2) for t in saved) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_dtype_and_memory_format(backend):
    x, *parameters = inputs(2, 4, (5, 7), torch.float32)
    with running_on(backend):
        out, mean = group_norm_silu(
            x.bfloat16().contiguous(memory_format=torch.channels_last), 2, *parameters, return_mean=True
        )
        assert out.dtype == mean.dtype == torch.bfloat16 and out.is_contiguous(memory_format=torch.channels_last)
        assert group_norm_silu(x, 2, *(p.double() for p in parameters)).dtype == torch.float32
        assert group_norm_silu(lay_out(x, "sliced"), 2, *parameters).is_contiguous()


@pytest.mark.parametrize("shape", [(0, 4, 3, 5), (2, 4, 0, 5), (2, 0, 3, 5)])
def test_empty_inputs_give_empty_results_and_zero_gradients(shape):
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    weight = torch.randn(shape[1], device=DEVICE, requires_grad=True)
    shift = torch.randn(shape[:2], device=DEVICE, requires_grad=True)
    out = group_norm_silu(x, 2, weight, None, None, shift)
    out.sum().backward()
    assert out.shape == shape
    for leaf in (x, weight, shift):
        assert torch.equal(leaf.grad, torch.zeros_like(leaf))


THREADS = """
import sys, torch
from f2d_kernels import use_backend
from f2d_kernels import group_norm_silu
torch.manual_seed(0)
results = []
for shape, groups in (((1, 6, 70, 67), 3), ((3, 16, 33, 31), 4)):
    for dtype in (torch.float32, torch.bfloat16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = (torch.randn(shape) * 3 + 1).to(dtype).contiguous(memory_format=memory_format)
            channels = shape[1]
            rest = [torch.randn(s) for s in ((channels,), (channels,), (shape[0], channels), (shape[0], channels))]
            leaves = [a.requires_grad_() for a in (x, *rest)]
            for threads in (1, 2, 4):
                torch.set_num_threads(threads)
                with use_backend("cpp"):
                    out, mean = group_norm_silu(leaves[0], groups, *leaves[1:], return_mean=True)
                    g = torch.autograd.grad([out, mean], leaves, [torch.ones_like(out) * 0.7, torch.ones_like(mean)])
                results.append([out.detach(), mean.detach(), *g])
torch.save(results, sys.argv[1])
"""


def test_same_bits_for_every_instruction_set_and_thread_count(tmp_path):
    """1, 2 and 4 threads, by groups or by tiles, on each instruction set this machine has, each in its own process."""
    if compiled.load_cpu() is not None:
        pytest.skip(compiled.load_cpu())
    info = compiled.build_info()
    levels = info["simd"][: info["simd"].index(info["simd_in_use"]) + 1]
    results = {}
    for level in levels:
        path = tmp_path / f"{level}.pt"
        environment = {**os.environ, "F2D_KERNELS_SIMD": level, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", THREADS, path], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results[level] = torch.load(path)
    for level in levels:
        for i, tensors in enumerate(results[level]):
            for actual, expected in zip(tensors, results[levels[-1]][i // 3 * 3], strict=True):
                assert torch.equal(actual, expected), f"{level}, case {i}"


X, P, S = torch.zeros(2, 4, 3, 5), torch.zeros(4), torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: group_norm_silu(X[0, 0], 2, P, P), ValueError, r"x must be \[B,C,H,W\] or \[B,C,L\], got \[3, 5\]"),
        (lambda: group_norm_silu(X.long(), 2, P, P), TypeError, "x must be float16"),
        (lambda: group_norm_silu(None, 2, P, P), TypeError, "x must be a tensor, got NoneType"),
        (lambda: group_norm_silu(X, 3, P, P), ValueError, "num_groups must be a divisor of the 4 channels of x, got 3"),
        (lambda: group_norm_silu(X, 0, P, P), ValueError, "num_groups must be a divisor"),
        (lambda: group_norm_silu(X, 2.0, P, P), TypeError, "num_groups must be a whole number, got float"),
        (lambda: group_norm_silu(X, 2, P[:3], P), ValueError, r"weight must be \[C\] = \[4\], got \[3\]"),
        (lambda: group_norm_silu(X, 2, P, S), ValueError, r"bias must be \[C\] = \[4\], got \[2, 4\]"),
        (lambda: group_norm_silu(X, 2, P, P, P), ValueError, r"scale must be \[B,C\] = \[2, 4\], got \[4\]"),
        (lambda: group_norm_silu(X, 2, P, P, None, S[:1]), ValueError, r"shift must be \[B,C\] = \[2, 4\]"),
        (lambda: group_norm_silu(X, 2, P, P, 1.0), TypeError, "scale must be a tensor, got float"),
        (lambda: group_norm_silu(X, 2, P.to("meta"), P), ValueError, r"weight must be on cpu .*got meta"),
        (lambda: group_norm_silu(X, 2, P, P, eps=-1e-5), ValueError, "eps must be at least 0"),
        (lambda: group_norm_silu(X, 2, P, P, eps="0"), TypeError, "eps must be a number, got str"),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(call, error, message):
    with pytest.raises(error, match=f"group_norm_silu: {message}"):
        call()
