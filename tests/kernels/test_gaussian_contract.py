"""What gaussian_transition promises beyond numbers: PyTorch integration, bits that depend on nothing, errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from f2d_kernels import gaussian_transition
from f2d_kernels.compiled import build_info
from f2d_kernels.registry import REGISTRY

from .cases import DEVICE, random
from .support import running_on
from .test_gaussian_transition import BACKENDS, SWEEP, inputs, leaves_of

ROOT = Path(__file__).parents[2]
DIGEST = """
import hashlib, torch
from f2d_kernels import use_backend
from f2d_kernels import gaussian_transition
for layout in (torch.contiguous_format, torch.channels_last):
    for dtype in (torch.float32, torch.bfloat16):
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            terms = [torch.randn(2, 3, 97, 131).to(dtype).contiguous(memory_format=layout) for _ in range(3)]
            leaves = [t.requires_grad_() for t in (*terms, torch.randn(2, 3), torch.rand(2))]
            with use_backend("cpp"):
                out = gaussian_transition(leaves[:3], leaves[3], leaves[4], seed=5, stream=2, window=(3, 5))
                out.backward(torch.randn(out.shape).to(dtype))
            data = b"".join(t.detach().double().numpy().tobytes() for t in (out, *(t.grad for t in leaves)))
            print(layout, dtype, hashlib.sha256(data).hexdigest())
"""


def test_instruction_sets_and_thread_counts_do_not_change_a_bit():
    """6 planes of 12707 pixels: several tiles, no multiple of 16 lanes, enough work for four threads."""
    if (missing := REGISTRY["cpp"].unavailable(DEVICE)) is not None:
        pytest.skip(f"cpp: {missing}")
    info = build_info()
    lines = {}
    for level in info["simd"][: info["simd"].index(info["simd_in_use"]) + 1]:
        environ = {**os.environ, "F2D_KERNELS_SIMD": level}
        done = subprocess.run([sys.executable, "-c", DIGEST], cwd=ROOT, capture_output=True, text=True, env=environ)
        assert done.returncode == 0, done.stderr
        lines[level] = done.stdout.splitlines()
    for level, found in lines.items():
        assert len(set(found)) == 4, f"{level}: thread counts differ"
        assert found == lines["baseline"], f"{level} differs from baseline"


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("std", [None, 0.7], ids=["deterministic", "seeded"])
def test_triton_equals_the_compiled_part_bit_for_bit(layout, std):
    """Same polynomials, same order of every fma: the result and the gradients of the terms."""
    triton = pytest.importorskip("triton")
    if DEVICE == "cpu" and tuple(int(v) for v in triton.__version__.split(".")[:2]) < (3, 9):
        pytest.skip(f"the interpreter of triton {triton.__version__} rounds an fma twice; 3.9 rounds once")
    terms = [t.contiguous(memory_format=layout) for t in inputs(2, 3, 3, (21, 19))[0]]
    grad, results = random(*terms[0].shape, seed=5), {}
    for backend in ("cpp", "triton"):
        leaves = [t.detach().requires_grad_() for t in terms]
        with running_on(backend):
            out = gaussian_transition(leaves, [0.3, -1.7, 0.11], std or 0, seed=2024, stream=9, window=(6, 5))
            out.backward(grad)
        results[backend] = [out, *(t.grad for t in leaves)]
    assert all(torch.equal(a, b) for a, b in zip(*results.values(), strict=True))


def test_saves_only_what_the_wanted_gradients_look_at():
    """Terms are kept alive for the coefficients' gradient only, the noise for that of std only."""
    terms, coefficients, std, noise = inputs(2, 2, 3, (8, 8))

    def kept(*wanted: Tensor) -> list[bool]:
        tensors = [terms[0], coefficients, std, noise]
        leaves = [t.detach().requires_grad_(any(t is w for w in wanted)) for t in tensors]
        places = set()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: places.add(t.data_ptr()) or t, lambda t: t):
            gaussian_transition([leaves[0], terms[1]], *leaves[1:3], noise=leaves[3])
        return [t.data_ptr() in places for t in (terms[0], terms[1], noise)]

    assert kept(terms[0], noise) == [False, False, False]
    assert kept(coefficients) == [True, True, False]
    assert kept(std) == [False, False, True]


@pytest.mark.parametrize("backend", SWEEP)
def test_gradcheck(backend):
    terms, *others = leaves_of(*inputs(2, 2, 3, (4, 5), torch.float64))
    with running_on(backend):
        assert torch.autograd.gradcheck(
            lambda a, b, c, s, n: gaussian_transition([a, b], c, s, noise=n), (*terms, *others)
        )
        assert torch.autograd.gradcheck(
            lambda a, b, c, s: gaussian_transition([a, b], c[0], s[0], seed=5, stream=2), (*terms, *others[:2])
        )
        assert torch.autograd.gradcheck(lambda a, b, c: gaussian_transition([a, b], c, 0), (*terms, others[0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_result_dtype_and_memory_format(backend):
    (x, mu), *_ = inputs(2, 2, 3, (4, 5), torch.bfloat16)
    last = mu.float().contiguous(memory_format=torch.channels_last)
    with running_on(backend), torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert gaussian_transition([x, mu], [1.0, 0.5], 0.5, seed=1).dtype == torch.bfloat16
        out = gaussian_transition([x, last], torch.ones(2, dtype=torch.float64, device=DEVICE), 0.5, seed=1)
        assert out.dtype == torch.float32 and out.is_contiguous()
        assert gaussian_transition([last, x], [1, 1], 0).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
def test_empty_inputs_give_empty_results_and_zero_gradients(shape):
    x = torch.randn(shape, device=DEVICE, requires_grad=True)
    coefficients, std = (torch.ones(*s, device=DEVICE, requires_grad=True) for s in ((shape[0], 2), (shape[0],)))
    out = gaussian_transition([x, x.detach()], coefficients, std, seed=1)
    out.sum().backward()
    assert out.shape == x.grad.shape == shape
    assert torch.equal(coefficients.grad, torch.zeros_like(coefficients))
    assert torch.equal(std.grad, torch.zeros_like(std))


X = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gaussian_transition(X, [1.0], 0.0), TypeError, "terms must be a sequence of tensors"),
        (lambda: gaussian_transition([], [], 0.0), ValueError, "one to 4 tensors .*, got 0"),
        (lambda: gaussian_transition([X] * 5, [1.0] * 5, 0.0), ValueError, "one to 4 tensors .*, got 5"),
        (lambda: gaussian_transition([X, None], [1.0] * 2, 0.0), TypeError, r"terms\[1\] must be a tensor"),
        (lambda: gaussian_transition([X.long()], [1.0], 0.0), TypeError, r"terms\[0\] must be float16"),
        (lambda: gaussian_transition([X[0]], [1.0], 0.0), ValueError, r"terms\[0\] must be \[B,C,H,W\]"),
        (lambda: gaussian_transition([X, X[:1]], [1.0] * 2, 0.0), ValueError, r"terms\[1\] must be the shape"),
        (
            lambda: gaussian_transition([X, X.to("meta")], [1.0] * 2, 0.0),
            ValueError,
            r"terms\[1\] must be on cpu .*got meta",
        ),
        (lambda: gaussian_transition([X, X], [1.0], 0.0), ValueError, "one number per term, 2, got 1"),
        (lambda: gaussian_transition([X], ["1"], 0.0), TypeError, r"coefficients\[0\] must be a number"),
        (lambda: gaussian_transition([X], 1.0, 0.0), TypeError, "coefficients must be a tensor or a sequence"),
        (lambda: gaussian_transition([X], torch.ones(2), 0.0), ValueError, r"\[J\] or \[B,J\] with J = 1, B = 2"),
        (lambda: gaussian_transition([X], torch.ones(3, 1), 0.0), ValueError, r"got \[3, 1\]"),
        (lambda: gaussian_transition([X], torch.ones(1).long(), 0.0), TypeError, "coefficients must be float16"),
        (lambda: gaussian_transition([X], [1.0], "0"), TypeError, "std must be a number"),
        (lambda: gaussian_transition([X], [1.0], torch.zeros(3)), ValueError, r"std must be a scalar or \[B\]"),
        (lambda: gaussian_transition([X], [1.0], 1.0, noise=X, seed=1), ValueError, "one source of noise"),
        (lambda: gaussian_transition([X], [1.0], 0.0, seed=1.5), TypeError, "seed must be an int"),
        (lambda: gaussian_transition([X], [1.0], 1.0, seed=1, stream=-1), ValueError, "0..65535"),
        (lambda: gaussian_transition([X], [1.0], 1.0, seed=1, window=(0, -1)), ValueError, "must lie in"),
    ],
)
def test_errors_name_the_argument_and_what_would_be_right(call, error, message):
    with pytest.raises(error, match=message):
        call()


ALIGNED = ("gaussian", "gaussian bf16", "gaussian bf16 4 terms", "gaussian without noise")
FAR = "gaussian beyond int32"


@pytest.mark.parametrize("case", ALIGNED)
def test_aligned_images_move_in_16_bytes_on_hopper(case):
    pytest.importorskip("triton")
    from .test_triton_compile import WIDE, compiled

    for kernel in compiled("cuda:90", *ALIGNED, FAR)[case][:2]:
        wide = [len(re.findall(WIDE.format(way), kernel["asm"])) for way in ("ld", "st")]
        assert wide[0] >= 2 and wide[1] >= 1, f"{kernel['kernel']}: {wide[0]} loads, {wide[1]} stores"
        assert not re.search(r"st\.global[.\w:]*\.b16", kernel["asm"])


def test_offsets_are_64_bit_where_images_pass_2_to_the_31():
    pytest.importorskip("triton")
    from .test_triton_compile import compiled

    for kernel in compiled("cuda:90", *ALIGNED, FAR)[FAR][:2]:
        offsets = re.findall(r"tt\.addptr [^\n]*, ((?:tensor<[^\n>]*>)|i\d+)(?: loc|\n)", kernel["ttir"])
        assert offsets and len(offsets) == kernel["ttir"].count("tt.addptr")
        assert all("i64" in offset for offset in offsets), f"{kernel['kernel']}: {set(offsets)}"
