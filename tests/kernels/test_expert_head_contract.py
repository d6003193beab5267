"""What expert_head promises beyond numbers: PyTorch integration, memory, the same bits everywhere, errors."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from f2d_kernels.ops.expert_head import expert_head

from .cases import DEVICE, lay_out
from .support import running_on
from .test_expert_head import BACKENDS, NAMES, formula, inputs


def detached(dtype=torch.float32, **layout) -> list[Tensor]:
    return [a.detach() for a in inputs(2, 3, 16, 3, (4, 5), dtype, **layout)]


@pytest.mark.parametrize("wanted", range(7))
def test_saves_features_only_where_a_wanted_gradient_looks_at_them(wanted):
    saved, arguments = [], detached()
    arguments[wanted].requires_grad_()

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        expert_head(*arguments)
    by_values = NAMES[1 + wanted] in ("d_weight", "d_channel_scale", "d_gates", "d_maps")
    assert (arguments[0].untyped_storage().nbytes() in saved) == by_values


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_dtype_and_memory_format(backend):
    features, *rest, base = detached()
    last = lay_out(features, "channels_last")
    with running_on(backend):
        assert expert_head(features.bfloat16(), *rest).dtype == torch.bfloat16
        assert expert_head(features.bfloat16(), *rest, base).dtype == torch.float32
        assert expert_head(features.bfloat16(), rest[0].double(), *rest[1:]).dtype == torch.bfloat16
        assert expert_head(features, *rest, base.contiguous(memory_format=torch.channels_last)).is_contiguous()
        for given in (last, list(last.unbind(1))):
            assert expert_head(given, *rest, base).is_contiguous(memory_format=torch.channels_last)
        last = last.requires_grad_()
        expert_head(last, *rest).sum().backward()
    assert last.grad.movedim(2, -1).is_contiguous()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert expert_head(features, *rest, base).dtype == torch.float32


@pytest.mark.parametrize(("batch", "channels", "size"), [(0, 3, (4, 5)), (2, 3, (0, 5)), (2, 0, (4, 5))])
def test_empty_inputs_give_empty_results_and_zero_gradients(batch, channels, size):
    arguments = [a.detach().requires_grad_() for a in inputs(batch, 2, 16, channels, size)]
    out = expert_head(*arguments)
    out.sum().backward()
    assert out.shape == (batch, channels, *size)
    assert all(torch.equal(a.grad, torch.zeros_like(a)) for a in arguments)


def allocated_by(call) -> int:
    """Bytes that PyTorch allocates on the CPU while `call` runs, never subtracting what is freed meanwhile."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    return sum(max(0, e.nbytes()) for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")


@pytest.mark.skipif(DEVICE != "cpu", reason="counts allocations on the CPU")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_neither_scaled_features_nor_deltas_are_ever_in_memory(layout):
    """PyTorch allocates the result, and in training the gradients: nothing else, so no K·C deltas. What the kernel
    itself allocates is scratch per thread and the tiles' sums, which the process's peak bounds."""
    arguments = [a.detach() for a in inputs(1, 4, 64, 3, (128, 128), layout=layout)]
    features, *_, base = arguments
    deltas = 4 * base.nbytes
    with running_on("cpp"):
        needed = allocated_by(lambda: expert_head(*arguments))
        assert base.nbytes <= needed <= base.nbytes + 4096 < base.nbytes + deltas
        leaves = [a.requires_grad_() for a in arguments]
        out = expert_head(*leaves)
        grad = torch.ones_like(out)
        needed = allocated_by(lambda: torch.autograd.grad(out, leaves, grad))
        assert needed <= sum(a.nbytes for a in leaves) + 8192
    assert allocated_by(lambda: formula(*(a.detach() for a in leaves))) > features.nbytes + deltas


PEAK = """
import re, sys, torch
from f2d_kernels import expert_head
def peak():  # getrusage's would be the parent's, if that is larger
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
torch.set_num_threads(1)
b, k, f, c, size = 1, 4, 64, 3, (1024, 1024)
features = torch.ones(b, k, *((*size, f) if sys.argv[1] == "channels_last" else (f, *size)), dtype=torch.bfloat16)
features = features.movedim(-1, 2) if sys.argv[1] == "channels_last" else features
arguments = [torch.ones(k, c, f), torch.ones(k, c), torch.ones(b, k, f), torch.ones(b, k), torch.ones(b, k, *size)]
small = [a[..., :8, :8] if a.dim() == 4 else a for a in arguments]
expert_head(features[..., :8, :8], *small)
before = peak()
out = expert_head(features, *arguments)
print(peak() - before - out.nbytes)
"""


@pytest.mark.skipif(DEVICE != "cpu", reason="looks at the process's own memory")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_process_grows_by_the_result_alone(layout):
    """At 1024 x 1024 the deltas would be 25 MB in bfloat16, the scaled features 537 MB; scratch may be 4 MB."""
    with running_on("cpp"):
        pass  # skips where there is no compiled part
    done = subprocess.run([sys.executable, "-c", PEAK, layout], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 4 * 2**20


DIGEST = """
import sys
from tests.kernels.test_expert_head_contract import digest
print(digest(int(sys.argv[1])))
"""


def digest(threads: int) -> str:
    """One hash over results and all gradients of cases with tails in every direction, both layouts, three dtypes."""
    torch.set_num_threads(threads)
    result = hashlib.sha256()
    for layout in ("contiguous", "channels_last", "sliced"):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            for width, channels, size in ((20, 3, (83, 51)), (32, 9, (17, 19)), (16, 1, (9, 57))):
                drawn = inputs(2, 2, width, channels, size, dtype, layout=layout)
                arguments = [a.detach().requires_grad_() for a in drawn]
                out = expert_head(*arguments)
                out.square().sum().backward()
                for tensor in (out.detach(), *(a.grad for a in arguments)):
                    result.update(tensor.double().numpy().tobytes())
    return result.hexdigest()


@pytest.mark.skipif(DEVICE != "cpu", reason="instruction sets and threads of the CPU")
def test_instruction_set_and_thread_count_do_not_change_a_bit():
    with running_on("cpp"):
        pass

    def run(level: str, threads: int) -> str:
        environ = {**os.environ, "F2D_KERNELS_SIMD": level, "F2D_KERNELS_BACKEND": "cpp"}
        command = [sys.executable, "-c", DIGEST, str(threads)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        if "does not have it" in done.stderr:
            return ""
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    runs = {(level, threads): run(level, threads) for level, threads in
            (("", 1), ("", 2), ("", 4), ("avx512", 1), ("avx2", 2), ("baseline", 1))}  # fmt: skip
    assert len({value for value in runs.values() if value}) == 1, runs


F, W, B, S = torch.zeros(2, 3, 8, 4, 5), torch.zeros(3, 2, 8), torch.zeros(3, 2), torch.zeros(2, 3, 8)
G, M, X = torch.zeros(2, 3), torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((F[0], W, B, S, G), ValueError, r"features must be \[B,K,F,H,W\]"),
        ((F[:, :, :0], W, B, S, G), ValueError, "F >= 1"),
        (([], W, B, S, G), ValueError, "at least one tensor"),
        (([F[:, 0], F[:, 1, :1]], W, B, S, G), ValueError, r"features\[1\] must be the shape of features\[0\]"),
        (([F], W, B, S, G), ValueError, r"features\[0\] must be \[B,F,H,W\]"),
        ((F, W[:2], B, S, G), ValueError, r"weight must be \[K,C,F\] with K = 3, F = 8 .* got \[2, 2, 8\]"),
        ((F, W[..., None], B, S, G), ValueError, "weight must be"),
        ((F, W, B[0], S, G), ValueError, r"bias must be \[K,C\] = \[3, 2\], got \[2\]"),
        ((F, W, B, S[:1], G), ValueError, r"channel_scale must be \[B,K,F\] = \[2, 3, 8\]"),
        ((F, W, B, S, G[:1]), ValueError, r"gates must be \[B,K\] = \[2, 3\], got \[1, 3\]"),
        ((F, W, B, S, G, M[..., :4]), ValueError, r"maps must be \[B,K,H,W\]"),
        ((F, W, B, S, G, M, M), ValueError, r"base must be \[B,C,H,W\] = \[2, 2, 4, 5\]"),
        ((F.long(), W, B, S, G), TypeError, "features must be float16"),
        ((F, None, B, S, G), TypeError, "weight must be a tensor, got NoneType"),
        ((F, W, B, S, [1.0]), TypeError, "gates must be a tensor, got list"),
        ((F, W, B, S, G.to("meta")), ValueError, r"gates must be on cpu .*got meta"),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(arguments, error, message):
    with pytest.raises(error, match=f"^expert_head: .*{message}"):
        expert_head(*arguments)
