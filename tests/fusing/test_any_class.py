"""accelerate on modules whose classes, copies or forwards do more than most: everything but the speed stays."""

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from f2d_kernels import accelerate
from tests.integrations.support import rejects

from .test_accelerate import calls

X = torch.randn(2, 8, 4, 5, generator=torch.Generator().manual_seed(2))


class Block(nn.Module):
    def __init__(self, made_by="hand"):
        super().__init__()
        self.n, self.made_by = nn.GroupNorm(2, 8), made_by

    def forward(self, x):
        return F.silu(self.n(x))


registry: dict = {}


class Registered(Block):
    def __init_subclass__(cls, tag, **rest):
        super().__init_subclass__(**rest)
        registry[tag] = cls


class First(Registered, tag="first"):
    pass


class Locked(Block):
    """Its lock cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "lock"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.lock = threading.Lock()


class Copied(Block):
    def __copy__(self):
        return type(self)("copy")

    def __deepcopy__(self, memo):
        return type(self)("deepcopy")


class Reduced(Block):
    def __reduce__(self):
        return made_again, ()


def made_again():
    return Reduced("reduce")


class Closed(type):
    """Classes of this metaclass cannot be extended without an argument."""

    def __new__(cls, name, bases, names, *, key):
        return super().__new__(cls, name, bases, names)

    def __init__(cls, name, bases, names, *, key):
        super().__init__(name, bases, names)


class Final(Block, metaclass=Closed, key=1):
    pass


class Gated(nn.Module):
    """The modulation's first layer writes in place into what the norm reads."""

    def __init__(self):
        super().__init__()
        self.n, self.act = nn.GroupNorm(2, 8), nn.SiLU()
        self.gate = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))


class InOneExpression(Gated):
    def forward(self, x):
        return self.act(self.n(x) * (1 + self.gate(x)) + self.gate(x))


class StatementByStatement(Gated):
    def forward(self, x):
        y = self.n(x)
        y = y * (1 + self.gate(x)) + 0.5
        return self.act(y)


class OfAView(Gated):
    def forward(self, x):
        return self.act(self.n(x[:, :8]) * (1 + self.gate(x)) + self.gate(x))


class OfAnotherName(Gated):
    def forward(self, x):
        self.same = x
        return self.act(self.n(x) * (1 + self.gate(self.same)) + self.gate(self.same))


class BeforeAStatement(Gated):
    def forward(self, x):
        e = x - 0.5
        y = self.n(x)
        y = y * (1 + self.gate(e)) + self.gate(e)
        other = e * 2
        y = self.act(y)
        return y + other


class OfViews(Gated):
    def forward(self, x):
        e = x.mean((2, 3))
        return self.act(self.n(x) * (1 + e.view(2, 8, 1, 1)) + e.unsqueeze(-1)[..., None])


def test_hooks_of_subclasses_are_not_called():
    net = First()
    assert len(accelerate(net).fused) == 1 and calls(net, X) == 1
    assert registry == {"first": First}


@pytest.mark.parametrize("kind", [Block, Locked, Copied, Reduced])
def test_copies_and_pickles_are_those_of_the_plain_class(kind):
    plain, fused = kind(), kind()
    accelerate(fused)
    for again in (copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))):
        expected, found = again(plain), again(fused)
        assert isinstance(found, kind) and found.made_by == expected.made_by
        assert (found.n is fused.n) == (expected.n is plain.n)
        torch.testing.assert_close(found(X), plain(X))
    if kind is Locked:
        assert len({id(net.lock) for net in (fused, copy.copy(fused), copy.deepcopy(fused))}) == 3


def test_a_class_that_cannot_be_extended_is_left_and_the_others_are_not():
    net = nn.Sequential(Block(), Final(), Block())
    report = accelerate(net)
    assert [pair.norm for pair in report.fused] == ["0.n", "2.n"]
    assert "Final: its class cannot be extended" in report.unchanged["1.n"]


def test_eps_may_be_whatever_the_plain_layer_takes():
    net = nn.Sequential(nn.GroupNorm(2, 8, eps=torch.tensor(0.5)), nn.SiLU())
    expected = net(X)
    accelerate(net)
    assert calls(net, X) == 1
    torch.testing.assert_close(net(X), expected)


def test_undo_leaves_a_class_that_others_have_extended():
    net = nn.Sequential(Block(), Block())
    report = accelerate(net)
    net[0].gain = nn.Parameter(torch.ones(2))
    nn.utils.parametrize.register_parametrization(net[0], "gain", nn.Tanh())
    report.undo()
    assert type(net[1]) is Block and net[0].gain.allclose(torch.ones(2).tanh())
    torch.testing.assert_close(net[0](X), F.silu(net[0].n(X)))


@pytest.mark.parametrize("kind", [InOneExpression, StatementByStatement, OfAView, OfAnotherName, BeforeAStatement])
def test_a_modulation_that_writes_in_place_is_left(kind):
    net = kind()
    expected = net(X.clone())
    with accelerate(net):
        torch.testing.assert_close(net(X.clone()), expected, rtol=0, atol=0)


def test_a_modulation_by_views_is_fused():
    net = OfViews()
    expected = net(X)
    assert len(accelerate(net).fused) == calls(net, X) == 1
    torch.testing.assert_close(net(X), expected)


def test_verify_looks_at_every_output_beside_infinities_and_at_imaginary_parts(monkeypatch):
    from f2d_kernels.fusing import pairs

    class Outputs(Block):
        def forward(self, x):
            y = F.silu(self.n(x))
            return torch.complex(x, y), torch.cat([y, torch.full_like(y, -torch.inf), torch.full_like(y, torch.nan)])

    for one in (lambda out: out[0], lambda out: out[1]):
        net = nn.Sequential(Outputs())
        net.register_forward_hook(lambda module, given, out, one=one: one(out))
        assert accelerate(net, verify=X).difference < 1e-5
        net = nn.Sequential(Outputs())
        net.register_forward_hook(lambda module, given, out, one=one: one(out))
        with monkeypatch.context() as patch:
            patch.setattr(pairs, "group_norm_silu", lambda x, *rest: x)
            rejects("outputs differ by [0-9]", lambda net=net: accelerate(net, verify=X), RuntimeError)


def test_devices_without_kernels_run_the_plain_layers():
    net = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()).to("meta")
    accelerate(net)
    assert calls(net, X.to("meta")) == 0
