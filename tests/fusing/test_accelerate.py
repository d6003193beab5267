"""accelerate: what it fuses gives the plain network's results; what it cannot prove it leaves."""

import copy
import importlib.util
import pickle
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import f2d_kernels
from f2d_kernels import accelerate
from tests.integrations.support import rejects

from . import networks


class Counting(TorchDispatchMode):
    """Calls of the fused op."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += function is torch.ops.f2d_kernels.group_norm_silu.default
        return function(*args, **(kwargs or {}))


def calls(net, *inputs):
    with Counting() as counted:
        net(*inputs)
    return counted.calls


def made(kind):
    torch.manual_seed(3)
    net = kind()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.5)
    return net


X, EMB = torch.randn(2, 8, 6, 5, generator=torch.Generator().manual_seed(1)), torch.randn(2, 8, 1, 1)


@pytest.mark.parametrize("kind", networks.BLOCKS)
@pytest.mark.parametrize("training", [False, True])
def test_results_and_gradients_stay(kind, training):
    plain = made(kind).train(training)
    fast = copy.deepcopy(plain)
    report = accelerate(fast)
    assert len(report.fused) == kind.norms and report.unchanged == {}
    assert calls(fast, X, EMB) == kind.norms
    results = []
    for net in (plain, fast):
        torch.manual_seed(5)
        x, emb = X.clone().requires_grad_(), EMB.clone().requires_grad_()
        out = net(x, emb)
        leaves = [x, *net.parameters()] + ([emb] if kind is not networks.Latent else [])
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for mine, theirs in zip(results[1], results[0]):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * max(1, float(theirs.detach().abs().max())))


@pytest.mark.parametrize("kind", networks.BLOCKS)
def test_the_module_stays_what_it_was(kind):
    net = made(kind)
    keys, parameters, text = list(net.state_dict()), list(net.parameters()), repr(net)
    expected = net.eval()(X, EMB)
    with accelerate(net):
        assert list(net.state_dict()) == keys and repr(net) == text and isinstance(net, kind)
        assert all(a is b for a, b in zip(net.parameters(), parameters))
        copied, loaded = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        assert calls(copied, X, EMB) == kind.norms and calls(loaded, X, EMB) == 0
        assert type(loaded) is kind
        torch.testing.assert_close(copied(X, EMB), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(loaded(X, EMB), expected, rtol=0, atol=0)
        nn.init.zeros_(next(copied.parameters()))
        assert float(next(net.parameters()).detach().abs().sum()) > 0
        again = accelerate(net)
        assert again.fused == [] and all("already" in reason for reason in again.unchanged.values())
        again.undo()
        assert calls(net, X, EMB) == kind.norms
        net.load_state_dict({k: v + 0.01 for k, v in net.state_dict().items()})
        net.load_state_dict({k: v - 0.01 for k, v in net.state_dict().items()})
        if kind not in (networks.Nested, networks.Guided):  # PyTorch refuses float32 for float64 parameters
            assert net.double()(X.double(), EMB.double()).dtype == torch.float64
            assert calls(net, X.double(), EMB.double()) == kind.norms
        net.float()
    assert type(net) is kind and calls(net, X, EMB) == 0
    torch.testing.assert_close(net(X, EMB), expected, rtol=1e-4, atol=1e-4)


def test_optional_modulation_is_still_optional():
    net = made(networks.Denoising)
    expected = net(X), net(X, EMB)
    accelerate(net)
    torch.testing.assert_close((net(X), net(X, EMB)), expected)
    assert calls(net, X) == calls(net, X, EMB) == 1


def test_what_is_wanted_elsewhere_is_left():
    net = made(networks.Twice)
    expected = net(X)
    report = accelerate(net)
    assert report.fused == [] and sorted(report.unchanged) == ["a", "b", "c", "d"]
    assert "does not go through a SiLU alone" in report.unchanged["a"]
    torch.testing.assert_close(net(X), expected, rtol=0, atol=0)


def test_reasons():
    class Own(nn.GroupNorm):
        def forward(self, x):
            return super().forward(x) + 1

    def pair(norm):
        return nn.Sequential(norm, nn.SiLU())

    hooked, patched = (pair(nn.GroupNorm(2, 8)) for _ in range(2))
    hooked[0].register_forward_hook(lambda *a: None)
    patched.forward = patched.forward
    made_up = {"nn": nn, "F": F}
    exec("class Typed(nn.Sequential):\n def forward(self, x): return F.silu(self[0](x))", made_up)
    net = nn.ModuleDict(
        {"own": pair(Own(2, 8)), "hooked": hooked, "patched": patched, "typed": made_up["Typed"](nn.GroupNorm(2, 8))}
    )
    reasons = accelerate(net).unchanged
    assert "Own has a forward of its own" in reasons["own.0"]
    assert "hooks" in reasons["hooked.0"]
    assert "set on the instance" in reasons["patched.0"]
    assert "source" in reasons["typed.0"]


def test_layers_that_change_later_run_as_they_are():
    net = made(networks.Denoising)
    accelerate(net)
    seen = []
    hook = net.norm.register_forward_hook(lambda module, inputs, out: seen.append(out))
    assert calls(net, X) == 0 and len(seen) == 1
    hook.remove()
    assert calls(net, X) == 1
    net.act = nn.ReLU()
    torch.testing.assert_close(net(X), F.relu(net.norm(net.proj(X))), rtol=0, atol=0)


def test_what_the_op_does_not_serve_runs_as_written():
    net = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU())
    accelerate(net)
    one = nn.Sequential(nn.GroupNorm(2, 2), nn.SiLU())
    with accelerate(one):
        rejects("Expected more than 1 value", lambda: one(torch.randn(1, 2, 1)))
    assert net(torch.randn(0, 8, 2, 2)).shape == (0, 8, 2, 2)
    with pytest.raises(RuntimeError, match=r"mixed dtype|share same datatype"):
        net(X.double())
    assert calls(net, torch.randn(2, 8, 7)) == 1
    assert calls(net, torch.randn(2, 8, 3, 4, 5)) == 0  # the op has no volumes
    inputs = torch.randn(3, 1, 8, 4, 4)
    torch.testing.assert_close(torch.func.vmap(net)(inputs), torch.stack([F.silu(net[0](x)) for x in inputs]))
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X), F.silu(net[0](X)), rtol=0, atol=0)


@pytest.mark.parametrize("kind", networks.BLOCKS)
def test_autocast_keeps_types_and_gets_no_worse(kind):
    net = made(kind).eval().requires_grad_(False)
    exact = net(X, EMB).double()
    with torch.autocast("cpu", torch.bfloat16):
        plain = net(X, EMB)
        accelerate(net)
        fast = net(X, EMB)
    assert fast.dtype == plain.dtype
    errors = [float((out.double() - exact).square().mean().sqrt()) for out in (fast, plain)]
    assert errors[0] <= 1.2 * errors[1] + 1e-3


def test_verify_compares_and_undoes(monkeypatch):
    net = made(networks.Guided).train()
    modes = [m.training for m in net.modules()]
    report = accelerate(net, verify=(X, EMB))
    assert 0 <= report.difference < 1e-4 and "outputs differ by at most" in str(report)
    assert [m.training for m in net.modules()] == modes
    report.undo()
    from f2d_kernels.fusing import pairs

    monkeypatch.setattr(pairs, "group_norm_silu", lambda x, *rest: x)
    rejects("outputs differ", lambda: accelerate(net, verify={"x": X, "emb": EMB}), RuntimeError)
    assert type(net) is networks.Guided and type(net.in_layers) is nn.Sequential


def test_only_modules():
    rejects("must be an nn.Module", lambda: accelerate(lambda x: x), TypeError)
    assert str(accelerate(nn.Linear(2, 2))) == "0 fused, 0 unchanged"


STATEMENTS = (
    "h = self.n(h)", "h = F.silu(h)", "k = F.silu(h)", "h = self.n(h) * (1 + e) + e", "h = h * (1 + e) + e",
    "h = h * (1 + h) + e",
    "k = h", "h = self.c(self.act(h))", "h = self.act(self.n(k))", "e = e * 0.5", "k = k + h", "h, k = k, h",
    "k = self.n(k)", "k = self.act(k)", "h = self.act(self.n(h) * (e + 1) + k)", "a, b = e, e", "h = h * (a + 1) + b",
    "h = self.n(k) * (1 + self.g(k)) + e", "h = h * (1 + self.g(e)) + self.g(k)", "b = e * 2",
    "h = h + k", "h += self.n(h)", "h = self.n(h + k)", "return F.silu(h), k, e",
    "return self.act(h)", "return self.act(h * 1)",
)  # fmt: skip


class Gate(nn.Module):
    """Writes in place into what it is given."""

    def forward(self, x):
        return x.mul_(0.9).mean((2, 3), keepdim=True).expand(-1, 4, 1, 1)


def program(random_source, depth=0):
    """Lines of a forward: any order of statements, some in branches."""
    lines = []
    for _ in range(random_source.randint(1, 5 if depth else 8)):
        if depth < 2 and random_source.random() < 0.25:
            test = random_source.choice(["flag", "not flag", "h.mean() > 0", "exists(flag)"])
            lines += [f"if {test}:", *("    " + line for line in program(random_source, depth + 1))]
            if random_source.random() < 0.6:
                lines += ["else:", *("    " + line for line in program(random_source, depth + 1))]
        else:
            # the pair that matters is likely, not certain
            chosen = random_source.choices(STATEMENTS, [8, 8, 4] + [2] * (len(STATEMENTS) - 6) + [1] * 3)[0]
            lines.append(chosen)
    return lines


def test_any_program_computes_what_it_did(tmp_path):
    source = random.Random(0)
    text = "import torch.nn.functional as F\nfrom tests.fusing.networks import exists\n"
    for i in range(120):
        body = "\n".join("        " + line for line in program(source))
        text += f"def forward_{i}():\n    def forward(self, h, e, flag):\n        k = a = b = e + h\n{body}\n"
        text += "        return h, k, e\n    return forward\n"
    (tmp_path / "programs.py").write_text(text)
    spec = importlib.util.spec_from_file_location("programs", tmp_path / "programs.py")
    programs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(programs)
    h, e, fused = torch.randn(1, 4, 3, 3).double(), torch.randn(1, 4, 1, 1).double() * 0.1, 0
    for i in range(120):
        kind = type("Program", (nn.Module,), {"forward": getattr(programs, f"forward_{i}")()})
        net = kind()
        net.n, net.c, net.act, net.g = nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1), nn.SiLU(), Gate()
        net.requires_grad_(False)
        nn.init.normal_(net.double().n.weight)
        for flag in (None, True):
            expected = net(h.clone(), e.clone(), flag)
            with accelerate(net):
                fused += calls(net, h.clone(), e.clone(), flag)
                torch.testing.assert_close(net(h.clone(), e.clone(), flag), expected, rtol=1e-6, atol=1e-9)
    assert fused > 60


@pytest.mark.parametrize("modulation", ["default", "scale_shift"])
def test_a_network_of_diffusers(modulation):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        resnet_time_scale_shift=modulation,
    )
    x = torch.randn(2, 3, 16, 16)
    expected = net(x, 7).sample
    report = accelerate(net, verify=(x, 7))
    blocks = [m for m in net.modules() if isinstance(m, diffusers.models.resnet.ResnetBlock2D)]
    assert len(report.fused) == 2 * len(blocks) + 1 == calls(net, x, 7)
    assert all("Attention" in reason for reason in report.unchanged.values())
    torch.testing.assert_close(net(x, 7).sample, expected, rtol=1e-4, atol=1e-4)


def test_our_own_networks_have_nothing_left_to_fuse():
    from f2d.nets import F2DNet

    report = accelerate(F2DNet.from_pretrained("f2d-lite"))
    assert report.fused == []


def test_exported():
    assert "accelerate" in f2d_kernels.__all__ and f2d_kernels.accelerate is accelerate
