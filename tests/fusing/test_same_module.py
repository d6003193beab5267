"""An accelerated module is the plain one to the rest of PyTorch: memory formats, TorchScript, torch.fx, export."""

import copy
import itertools
import random
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from f2d_kernels import accelerate
from f2d_kernels.fusing.pairs import _result_type

from . import networks
from .test_accelerate import EMB, X, calls, made


class Modulated(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x, scale, shift):
        return F.silu(self.norm(x) * (1 + scale) + shift)


def layers():
    return nn.Sequential(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 1))


def image(source):
    """A random [B,C,L] or [B,C,H,W]: permuted, sliced, expanded, or with any strides where they are free."""
    sizes = [source.choice((1, 1, 2, 3)), source.choice((1, 2, 6)), *(source.choice((1, 2, 3, 5)) for _ in range(2))]
    sizes = sizes[: source.choice((3, 4, 4, 4))]
    order = source.sample(range(len(sizes)), len(sizes))
    steps = [source.choice((1, 1, 2)) for _ in sizes]
    whole = torch.randn([sizes[d] * steps[d] for d in order]).permute([order.index(d) for d in range(len(sizes))])
    x = whole[tuple(slice(None, None, step) for step in steps)]
    if source.random() < 0.2:
        d = source.randrange(len(sizes))
        x = x.narrow(d, 0, 1).expand_as(x)
    if source.random() < 0.3:
        free = [source.choice((1, 7, 60, stride)) if size == 1 else stride for size, stride in zip(x.shape, x.stride())]
        x = x.as_strided(x.shape, free)
    if len(sizes) == 4 and source.random() < 0.2:
        x = x.contiguous(memory_format=torch.channels_last)
    return x


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16])
def test_result_types_are_those_of_eager_pytorch(device, autocast):
    """Fake tensors know the types on a GPU without one: there, autocast makes every 16-bit norm float32."""
    kinds, decided = (torch.float16, torch.bfloat16, torch.float32, torch.float64), 0
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    try:
        torch.set_autocast_enabled(device, autocast is not None)  # the context manager wants a GPU
        torch.set_autocast_dtype(device, autocast or before[1])
        with FakeTensorMode(), torch.no_grad():
            for given, own in itertools.product(kinds, (None, *kinds)):
                norm = nn.GroupNorm(2, 8, affine=own is not None, device=device, dtype=own)
                x = torch.empty(2, 8, 3, 3, device=device, dtype=given)
                found = _result_type(norm, norm.weight, x)
                decided += found is not None
                assert found is None or found == norm(x).dtype, (given, own)
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
    assert decided == (8 if autocast is None else 10)


def test_memory_formats_are_those_of_eager_pytorch():
    source, fused = random.Random(3), 0
    for _ in range(400):
        x = image(source)
        per_channel = [torch.randn(source.choice((1, len(x))), x.shape[1], *(1,) * (x.dim() - 2)) for _ in range(2)]
        for net, arguments in (
            (nn.Sequential(nn.GroupNorm(1, x.shape[1]), nn.SiLU()), ()),
            (Modulated(x.shape[1]), per_channel),
        ):
            if x[0].numel() == 1:  # PyTorch refuses a group of one value
                continue
            seen = []
            for fast in (False, True):
                if fast:
                    accelerate(net)
                leaf = x.detach().requires_grad_()
                out = net(leaf, *arguments)
                (d_x,) = torch.autograd.grad(out.square().sum(), leaf)
                torch.manual_seed(0)
                seen.append((out, d_x, torch.randn_like(out)))
            case = f"{list(x.shape)} {x.stride()} {type(net).__name__}"
            for a, b in zip(*seen, strict=True):
                assert a.stride() == b.stride(), case
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3, msg=case)
            fused += calls(net, x, *arguments)
    assert fused > 300


def test_one_sample_with_its_channels_innermost():
    """Torch calls such strides contiguous, so what follows the pair draws other noise if ours does not."""
    x = torch.randn(9, 7, 1, 32).permute(2, 3, 0, 1)
    net = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU())
    expected = net(x)
    accelerate(net)
    assert calls(net, x) == 1 and net(x).stride() == expected.stride() == (2016, 63, 7, 1)


@pytest.mark.parametrize("kind", [*networks.BLOCKS, None])
def test_torchscript_compiles_the_plain_source(kind):
    net = made(
        kind or (lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Dropout(0.5)))
    ).eval()
    inputs = (X, EMB) if kind else (X,)
    expected = net(*inputs)
    try:
        scripted = torch.jit.script(copy.deepcopy(net))
    except RuntimeError:  # TorchScript does not know everything that these networks are written with
        scripted = None
    report = accelerate(net)
    if scripted is not None:
        scripted = torch.jit.script(net)
        torch.testing.assert_close(scripted(*inputs), expected, rtol=1e-5, atol=1e-5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*converted.*", category=torch.jit.TracerWarning)
        traced = torch.jit.trace(net, inputs)
    torch.testing.assert_close(traced(*inputs), expected, rtol=1e-5, atol=1e-5)
    assert calls(net, *inputs) == len(report.fused)  # the module itself stays accelerated
    assert scripted is not None or kind is not None


def test_fx_export_and_functional_call_see_a_plain_network():
    net = made(layers)
    expected, parameters = net(X), {name: p + 1 for name, p in net.named_parameters()}
    moved = torch.func.functional_call(net, parameters, (X,))
    state = copy.deepcopy(net.state_dict())
    accelerate(net)
    assert list(state) == list(net.state_dict())
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(X), expected)
    torch.testing.assert_close(torch.export.export(net, (X,)).module()(X), expected)
    torch.testing.assert_close(torch.func.functional_call(net, parameters, (X,)), moved, rtol=1e-4, atol=1e-4)


def test_parameters_of_another_kind_run_as_written():
    class Kept(torch.Tensor):
        """A subclass of torch.Tensor, as quantisation and sharding use them for weights."""

    net = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU())
    accelerate(net)
    other = torch.randn(8).as_subclass(Kept)
    expected = F.silu(F.group_norm(X, 2, other, net[0].bias))
    found = torch.func.functional_call(net, {"0.weight": other}, (X,))
    assert type(found) is type(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pixels", "dtype", "layout", "threads", "plain", "training"),
    [
        (64, torch.float32, torch.contiguous_format, 1, False, False),
        (4032, torch.float32, torch.contiguous_format, 1, False, False),
        (4096, torch.float32, torch.contiguous_format, 1, True, False),
        (4096, torch.float32, torch.contiguous_format, 2, False, False),
        (8192, torch.float32, torch.contiguous_format, 2, True, False),
        (16384, torch.float32, torch.contiguous_format, 1, True, True),
        (16384, torch.float32, torch.channels_last, 2, True, False),
        (4096, torch.bfloat16, torch.contiguous_format, 1, True, False),
        (16384, torch.bfloat16, torch.channels_last, 1, True, True),
        (65472, torch.bfloat16, torch.contiguous_format, 1, True, False),
        (65536, torch.bfloat16, torch.contiguous_format, 1, True, True),
    ],
)
def test_small_tensors_run_as_written(pixels, dtype, layout, threads, plain, training, own_sizes, monkeypatch):
    """plain, training: whether pairs of 32 channels are fused without and with gradients."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    net = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU()).to(dtype)
    x = torch.randn(1, 32, pixels // 64, 64, dtype=dtype).to(memory_format=layout)
    expected = net(x)
    accelerate(net)
    for gradients, fused in ((False, plain), (True, training)):
        with torch.set_grad_enabled(gradients):
            assert calls(net, x) == fused
            torch.testing.assert_close(net(x), expected, **({} if fused else {"rtol": 0, "atol": 0}))


def test_verify_runs_the_fused_pairs_of_a_small_sample(own_sizes, monkeypatch):
    from f2d_kernels.fusing import pairs

    monkeypatch.setattr(pairs, "group_norm_silu", lambda x, *rest: x)
    net = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU())
    with pytest.raises(RuntimeError, match="outputs differ"):
        accelerate(net, verify=X)


class Adapted(nn.Module):
    """Adds its update to the weight in evaluation mode, as LoRA layers do, and trains it apart."""

    def __init__(self):
        super().__init__()
        self.weight, self.update, self.merged = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.ones(())), False

    def train(self, mode=True):
        if self.merged == mode:
            with torch.no_grad():
                self.weight += -self.update if mode else self.update
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return x * (self.weight if self.merged else self.weight + self.update)


def test_verify_ends_evaluation_as_training_does():
    net = nn.Sequential(Adapted(), nn.GroupNorm(2, 8), nn.SiLU(), Adapted()).train()
    net[3].eval()
    assert accelerate(net, verify=X).difference < 1e-4
    assert [m.training for m in net.modules()] == [True, True, True, True, False]
    assert not net[0].merged and bool((net[0].weight == 1).all())
    assert net[3].merged and bool((net[3].weight == 2).all())
