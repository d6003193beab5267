"""What is not a plain tensor, number or flag: taken where its meaning is plain, else one error that names the op and
the argument."""

import fractions
import math

import numpy as np
import pytest
import torch

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
    use_backend,
)

from .derivative_cases import CASES

NAMES = [name for name in CASES if " of " not in name]
KINDS = {
    "sparse": (lambda t: t.to_sparse(), "sparse_coo"),
    "compressed": (lambda t: t.to_sparse_csr() if t.dim() == 2 else t.to_sparse(), "sparse_cs"),
    "MKLDNN": (lambda t: t.float().to_mkldnn(), "_mkldnn"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t)), "a nested tensor"),
    "jagged": (lambda t: torch.nested.nested_tensor(list(t), layout=torch.jagged), "a nested tensor"),
    "quantised": (lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8), "quint8"),
    "complex": (lambda t: t.to(torch.complex64), "complex64"),
    "8 bits": (lambda t: t.to(torch.float8_e4m3fn), "float8"),
    "array": (lambda t: t.numpy(), "ndarray"),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_other_kinds_of_tensors_are_refused_by_name(name, kind):
    """In every place, by an error that names the op and says what was given, in words that only this project uses."""
    made, given = KINDS[kind]
    for place, tensor in enumerate(CASES[name].inputs(torch.float32)):
        inputs = CASES[name].inputs(torch.float32)
        if tensor.dim() < 2 and kind in ("nested", "jagged"):
            continue
        if kind == "compressed" and tensor.dim() != 2:
            continue
        inputs[place] = made(tensor)
        with pytest.raises(TypeError, match=f"^{name}: .* must be .*{given}"):
            CASES[name].op(*inputs)


@pytest.mark.parametrize("value", [None, 3, object()], ids=["None", "int", "object"])
def test_what_is_neither_a_tensor_nor_a_sequence_of_tensors_is_refused_by_name(value):
    given = f"got {type(value).__name__}"
    for call, name in (
        (lambda: expert_assembly(value, G), "expert_assembly: deltas"),
        (lambda: transport_step(X, value, G, None, None, 0.0, 0.0), "transport_step: deltas"),
        (lambda: expert_head(value, G, None, None, G), "expert_head: features"),
        (lambda: gaussian_transition(value, [1.0], 0.0), "gaussian_transition: terms"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be .*{given}"):
            call()


@pytest.mark.parametrize("layout", ["sparse", "nested"])
def test_seeds_of_other_kinds_are_refused_by_name(layout):
    x = torch.zeros(2, 3, 4, 5)
    seed = torch.tensor([1, 2])
    seed = seed.to_sparse() if layout == "sparse" else torch.nested.nested_tensor([seed[:1], seed[1:]])
    with pytest.raises(TypeError, match="lognormal_transition: seed must be a dense"):
        lognormal_transition(x, x, 0.0, 1.0, seed=seed)


@pytest.mark.parametrize("name", CASES)
def test_lazy_negations_conjugates_and_zeros_have_their_values(name):
    case = CASES[name]
    views = {
        "negated": lambda t: torch._neg_view(t),
        "imaginary part of a conjugate": lambda t: (1j * t).conj().imag,
        "zeros that are not stored": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
        "overlapping": lambda t: t.flatten().repeat(2).as_strided(t.shape, (1,) * t.dim()),
        "expanded": lambda t: t.flatten()[:1].reshape((1,) * t.dim()).expand(t.shape),
    }
    for view in views.values():
        given = [view(t) for t in case.inputs()]
        found, expected = case.op(*given), case.formula(*(torch.zeros_like(t).add_(t).contiguous() for t in given))
        limit = 1e-4 if "seed" in name else 1e-9
        torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


X, K, G = torch.rand(2, 4, 5, 6), torch.rand(2, 3, 4, 5, 6), torch.rand(2, 3)


def step(clamp):
    return transport_step(X, K, G, None, None, -0.1, 0.2, clamp=clamp, seed=1)[0]


def log(**given):
    return lognormal_transition(X, X.cos(), **({"log_mean": -0.1, "log_std": 0.2, "seed": 1} | given))


# name of the argument in the message -> (a call with it, values that are as good as a number, what they stand for)
WHOLE = {
    "stream": (lambda v: log(stream=v), 3),
    "window's top": (lambda v: log(window=(v, 0)), 3),
    "window's left": (lambda v: log(window=(0, v)), 3),
    "seed": (lambda v: log(seed=v), 3),
    "num_groups": (lambda v: group_norm_silu(X, v, None, None), 2),
}
REAL = {
    "log_mean": (lambda v: log(log_mean=v), 0.5),
    "log_std": (lambda v: log(log_std=v), 0.5),
    "std": (lambda v: gaussian_transition([X], [1.0], v, seed=1), 0.5),
    r"coefficients\[0\]": (lambda v: gaussian_transition([X], [v], 0.0), 0.5),
    "clamp": (lambda v: step((v, 1.0)), 0.5),
    "eps": (lambda v: group_norm_silu(X, 2, None, None, eps=v), 0.5),
}
NEITHER = [True, np.bool_(True), "3", None, 1j, [3], {3}, {3: 4}, np.array([1, 2]), object()]


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_numbers_of_python_and_numpy_are_one(name):
    call, value = (WHOLE | REAL)[name]
    whole, real = [np.int64, np.int32, np.uint8], [np.float64, np.float32, np.float16, fractions.Fraction]
    for kind in whole if name in WHOLE else real:
        assert torch.equal(call(kind(value)), call(value)), kind


@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_what_is_no_number_is_refused_by_name(name):
    call, value = (WHOLE | REAL)[name]
    wrong = [v for v in NEITHER if not (name == "seed" and v is None)]
    wrong += [float(value), fractions.Fraction(value), np.float32(value)] if name in WHOLE else []
    wrong += [torch.tensor(True), torch.tensor(value)] if name in (*WHOLE, "clamp", "eps") and name != "seed" else []
    for v in wrong:
        with pytest.raises(TypeError, match=f"^[a-z_]+: (a )?{name}.* must be"):
            call(v)


def test_what_is_no_pair_flag_generator_or_backend_is_refused_by_name():
    for window in (5, "ab", {1: 2, 3: 4}, {1, 2}, (1,), (1, 2, 3), np.array([1, 2]), torch.tensor([1, 2]), ()):
        with pytest.raises(ValueError, match=r"^lognormal_transition: window must be"):
            log(window=window)
    for clamp in (5, "ab", {1: 2, 3: 4}, None, (1.0,), torch.tensor([0.0, 1.0]), (1.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match=r"^transport_step: clamp must be"):
            step(clamp)
    for flag in (1, 0, None, "yes", torch.tensor(True), np.bool_(True)):
        with pytest.raises(TypeError, match=r"^group_norm_silu: return_mean must be True or False"):
            group_norm_silu(X, 2, None, None, return_mean=flag)
    for std in (0.0, 1.0):
        for generator in ("a", 3, True, torch.tensor(1), torch.Generator):
            with pytest.raises(TypeError, match=r"^gaussian_transition: generator must be a torch.Generator"):
                gaussian_transition([X], [1.0], std, generator=generator)
        with pytest.raises(ValueError, match=r"^gaussian_transition: give one source"):
            gaussian_transition([X], [1.0], std, seed=1, generator=torch.Generator())
    for name in (["cpp"], {"cpp": 1}, None, 3):
        with pytest.raises(ValueError, match="use_backend: unknown backend"), use_backend(name):
            pass


def test_numbers_beyond_their_range_are_refused_by_name():
    for call, error in (
        (lambda: log(log_mean=2**2000), "log_mean must fit"),
        (lambda: gaussian_transition([X], [2**2000], 0.0), r"coefficients\[0\] must fit"),
        (lambda: group_norm_silu(X, 2**70, None, None), "num_groups must be a divisor"),
        (lambda: log(stream=2**70), "stream must lie in"),
        (lambda: log(seed=-(2**63) - 1), "64 bits"),
        (lambda: group_norm_silu(X, 2, None, None, eps=math.nan), "eps must be at least 0"),
    ):
        with pytest.raises(ValueError, match=f"^[a-z_]+: .*{error}"):
            call()


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_number_that_is_not_finite_spreads_as_in_the_formula(backend):
    """As a tensor of it does: log_mean = inf is clamped to 20, -inf to -20, and nan stays nan."""
    with use_backend(backend):
        for value, expected in ((math.inf, 20.0), (-math.inf, -20.0)):
            torch.testing.assert_close(log(log_mean=value, log_std=0.0), log(log_mean=expected, log_std=0.0))
        assert log(log_mean=math.nan).isnan().all()
        assert gaussian_transition([X], [1.0], math.nan, seed=1).isnan().all()
        one = torch.tensor([math.nan, 0.0])
        assert log(log_mean=one)[0].isnan().all() and log(log_mean=one)[1].isfinite().all()
