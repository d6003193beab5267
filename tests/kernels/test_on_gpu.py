"""What only a GPU can show: streams, several devices, tensors of more than 2^31 elements, the noise of the CPU."""

import pytest
import torch

from f2d_kernels import backends, expert_assembly, lognormal_transition, use_backend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

BACKENDS = ["triton", "cuda"]
GIB = 2**30


@pytest.fixture(params=BACKENDS)
def backend(request):
    if backends()[request.param] != "available":
        pytest.skip(f"{request.param}: {backends()[request.param]}")
    with use_backend(request.param):
        yield request.param


def need_memory(gibibytes: float) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gibibytes * GIB:
        pytest.skip(f"needs {gibibytes} GiB of free GPU memory, there are {free / GIB:.1f}")


def assembly_arguments(device: str, seed: int = 0) -> list[torch.Tensor]:
    shapes = [(2, 4, 3, 65, 67), (2, 4), (2, 4, 65, 67), (2, 3, 65, 67)]
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def formula(deltas, gates, maps, base):
    return base + (gates[:, :, None, None, None] * maps[:, :, None] * deltas).sum(1)


def test_kernels_run_on_the_current_stream(backend):
    arguments = assembly_arguments("cuda")
    expert_assembly(*arguments)  # compiled before the clock of the stream matters
    expected = formula(*(10 * arguments[0], *arguments[1:]))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # a kernel on any other stream would run before the next line has written
        arguments[0].mul_(10)
        out = expert_assembly(*arguments)
    stream.synchronize()
    torch.testing.assert_close(out, expected)


def test_backward_runs_on_the_stream_of_the_forward_pass(backend):
    deltas, gates, maps, base = (t.requires_grad_() for t in assembly_arguments("cuda"))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        out = expert_assembly(deltas, gates, maps, base)
        torch.cuda._sleep(200_000_000)
        out.square().sum().backward()
    stream.synchronize()
    expected = torch.autograd.grad(formula(deltas, gates, maps, base).square().sum(), [deltas, gates, maps, base])
    for leaf, gradient in zip((deltas, gates, maps, base), expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_each_device_works_whichever_is_current(backend):
    for device in range(torch.cuda.device_count()):
        arguments = assembly_arguments(f"cuda:{device}", seed=device)
        with torch.cuda.device((device + 1) % torch.cuda.device_count()):
            out = expert_assembly(*arguments)
        assert out.device.index == device
        torch.testing.assert_close(out, formula(*arguments))


def test_a_call_is_captured_in_a_graph_and_replayed_with_another_seed(backend):
    x, mu = (torch.randn(2, 3, 33, 35, device="cuda") for _ in range(2))
    seed = torch.tensor([5], device="cuda")
    schedule = (torch.full((2,), -0.3, device="cuda"), torch.full((2,), 0.4, device="cuda"))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        lognormal_transition(x, mu, *schedule, seed=seed)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = lognormal_transition(x, mu, *schedule, seed=seed)
    for value in (5, 11):
        seed.fill_(value)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, lognormal_transition(x, mu, *schedule, seed=value))


def test_one_seed_draws_the_same_noise_as_on_the_cpu(backend):
    x, mu = torch.ones(2, 3, 65, 67), torch.zeros(2, 3, 65, 67)
    here = lognormal_transition(x.cuda(), mu.cuda(), 0.0, 1.0, seed=123, stream=7, window=(5, 9)).log().cpu()
    with use_backend("reference"):
        there = lognormal_transition(x, mu, 0.0, 1.0, seed=123, stream=7, window=(5, 9)).log()
    # 2e-6 each from the float64 evaluation, and the rounding of exp and log
    torch.testing.assert_close(here, there, rtol=0, atol=8e-6)


def test_assembly_beyond_2_to_the_31_elements(backend):
    """The last rows of a stack of 2^31 + elements; every value is a small whole number, exact in bf16."""
    need_memory(14)
    batch, experts, channels, height, width = 1, 4, 3, 13_400, 13_400  # 2.15e9 elements of deltas, 4.3 GB
    assert batch * experts * channels * height * width > 2**31
    deltas = torch.zeros(batch, experts, channels, height, width, dtype=torch.bfloat16, device="cuda")
    deltas[..., -1, :] = 3
    deltas[..., 0, :] = 2
    gates = torch.ones(batch, experts, device="cuda")
    out = expert_assembly(deltas, gates)
    assert (out[..., -1, :] == 3 * experts).all()
    assert (out[..., 0, :] == 2 * experts).all()
    assert (out[..., 1:-1, :] == 0).all()


def test_gradients_of_an_assembly_beyond_2_to_the_31_elements(backend):
    need_memory(20)
    deltas = torch.zeros(1, 4, 3, 13_400, 13_400, dtype=torch.bfloat16, device="cuda").requires_grad_()
    gates = torch.full((1, 4), 2.0, device="cuda", requires_grad=True)
    out = expert_assembly(deltas, gates)
    upstream = torch.zeros_like(out)
    upstream[..., -1, :] = 1
    d_deltas, d_gates = torch.autograd.grad(out, [deltas, gates], upstream)
    assert (d_deltas[..., -1, :] == 2).all()
    assert (d_deltas[..., :-1, :] == 0).all()
    assert (d_gates == 0).all()


def test_transition_beyond_2_to_the_31_elements(backend):
    """The noise of the last rows, keyed by their position, is that of a small tile there."""
    need_memory(16)
    height, width = 26_800, 26_800  # 3 channels: 2.15e9 elements, 4.3 GB
    assert 3 * height * width > 2**31
    x = torch.ones(1, 3, height, width, dtype=torch.bfloat16, device="cuda")
    mu = torch.zeros(1, dtype=torch.bfloat16, device="cuda").expand(x.shape)
    out = lognormal_transition(x, mu, 0.0, 0.5, seed=3)
    tile = lognormal_transition(x[..., -4:, :], mu[..., -4:, :], 0.0, 0.5, seed=3, window=(height - 4, 0))
    assert torch.equal(out[..., -4:, :], tile)


@pytest.mark.parametrize("warps", [1, 2, 8, 16])
def test_the_choice_of_warps_changes_no_bit(warps, monkeypatch):
    from f2d_kernels.triton import _launch

    if backends()["triton"] != "available":
        pytest.skip(f"triton: {backends()['triton']}")

    def results(forced: int) -> list[torch.Tensor]:
        monkeypatch.setattr(_launch, "tuned_warps", lambda *_: forced)
        with use_backend("triton"):
            arguments = [t.requires_grad_() for t in assembly_arguments("cuda")]
            out = lognormal_transition(arguments[3], expert_assembly(*arguments), -0.1, 0.3, seed=5)
            out.square().sum().backward()
        return [out, *(t.grad for t in arguments)]

    for actual, expected in zip(results(warps), results(4), strict=True):
        assert torch.equal(actual, expected)
