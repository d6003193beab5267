"""Muon against its formula by singular values, in float64, and against PyTorch's own optimisers."""

import pytest
import torch
from torch import nn

from f2d.training.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonalised
from f2d.training.recipe import Recipe

SHAPES = [(8, 24), (24, 8), (16, 16), (1, 40), (5, 1)]


def by_singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """U p(p(...p(S / |S|))) Vᵀ with p(s) = a s + b s³ + c s⁵: what the iteration computes without a decomposition."""
    a, b, c = COEFFICIENTS
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm()
    for _ in range(ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-4)])
def test_the_orthogonal_factor_by_singular_values(shape, dtype, tolerance):
    """Singular values under 1e-4 of the largest drown in the rounding of a float32 Gram matrix, grown 480 times."""
    draws = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=draws, dtype=torch.float64)
    matrices[1] *= torch.logspace(0, -6, shape[0], dtype=torch.float64)[:, None]  # badly conditioned
    found = orthogonalised(matrices.to(dtype))
    for matrix, result in zip(matrices, found, strict=True):
        torch.testing.assert_close(result.double(), by_singular_values(matrix), rtol=0, atol=tolerance)


def test_a_zero_matrix_stays_zero():
    assert torch.equal(orthogonalised(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


class Net(nn.Module):
    """A kernel in channels_last, a matrix, vectors, a depthwise kernel, and a frozen weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 10, 3).to(memory_format=torch.channels_last)
        self.twin = nn.Conv2d(6, 10, 3)
        self.linear = nn.Linear(12, 7)
        self.column = nn.Linear(1, 5)
        self.norm = nn.GroupNorm(2, 4)
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)
        self.double()


def gradients(net: nn.Module, step: int) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(step)
    return {
        name: torch.randn(p.shape, generator=draws, dtype=p.dtype)
        for name, p in net.named_parameters()
        if p.requires_grad
    }


def test_steps_by_the_formula():
    torch.manual_seed(0)
    net, rate, decay, momentum, betas = Net(), 0.02, 0.1, 0.95, (0.9, 0.99)
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    expected = {name: value.clone() for name, value in start.items()}
    moments = {name: torch.zeros_like(value) for name, value in start.items()}
    vectors = {
        name: nn.Parameter(start[name].clone())
        for name in expected
        if not name.startswith(("conv.w", "twin.w", "linear.w"))
    }
    adamw = torch.optim.AdamW(
        [p for n, p in vectors.items() if n != "frozen"], lr=rate, betas=betas, weight_decay=decay
    )
    optimizer = Muon(net.parameters(), lr=rate, betas=betas, weight_decay=decay, momentum=momentum)
    for step in range(3):
        given = gradients(net, step)
        for name, p in net.named_parameters():
            p.grad = given.get(name)
        optimizer.step()
        for name in ("conv.weight", "twin.weight", "linear.weight"):
            moments[name] = momentum * moments[name] + given[name]
            direction = (given[name] + momentum * moments[name]).flatten(1)
            update = 0.2 * max(direction.shape) ** 0.5 * by_singular_values(direction)
            expected[name] = (1 - rate * decay) * expected[name] - rate * update.view_as(expected[name])
        for name, p in vectors.items():
            p.grad = given.get(name)
        adamw.step()
    for name, p in net.named_parameters():
        wanted = vectors[name] if name in vectors else expected[name]
        torch.testing.assert_close(p.detach(), wanted.detach(), rtol=1e-10, atol=1e-12, msg=name)
    assert torch.equal(net.frozen, start["frozen"])


def test_a_matrix_as_torch_optim_muon_moves_it():
    """PyTorch's own works in bfloat16: an update of length 1 is off by about 2^-8."""
    torch.manual_seed(0)
    mine, theirs = (nn.Parameter(torch.ones(24, 40)) for _ in range(2))
    ours = Muon([mine], lr=0.1, weight_decay=0.01, momentum=0.9)
    peer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        grad = torch.randn(24, 40)
        # its momentum is an average, (1 - m) times the sum; the direction is the same
        mine.grad, theirs.grad = grad.clone(), grad.clone()
        ours.step()
        peer.step()
    moved = (theirs - 1).norm()
    assert (mine - theirs).norm() < 0.02 * moved


def test_parameters_without_a_gradient_stay():
    net = Net()
    optimizer = Muon(net.parameters(), lr=0.1, weight_decay=0.5)
    before = net.linear.weight.detach().clone()
    net.conv.weight.grad = torch.ones_like(net.conv.weight)
    optimizer.step()
    assert torch.equal(net.linear.weight, before)


def test_a_saved_state_goes_on_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    whole, cut = Net(), Net()
    cut.load_state_dict(whole.state_dict())
    options = {"lr": 0.01, "weight_decay": 0.1}
    one, other = Muon(whole.parameters(), **options), Muon(cut.parameters(), **options)
    for step in range(4):
        if step == 2:
            torch.save(other.state_dict(), tmp_path / "state.pt")
            other = Muon(cut.parameters(), **options)
            other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for net, optimizer in ((whole, one), (cut, other)):
            given = gradients(net, step)
            for name, p in net.named_parameters():
                p.grad = given.get(name)
            optimizer.step()
    for p, q in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_closure_gives_the_loss():
    weight = nn.Parameter(torch.eye(3))

    def closure() -> torch.Tensor:
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert Muon([weight], lr=0.1).step(closure).item() == 3.0


def test_muon_is_not_for_sharded_weights():
    with pytest.raises(ValueError, match=r"recipe: strategy must be auto or ddp with optimizer muon.*got 'fsdp'"):
        Recipe(optimizer="muon", strategy="fsdp")
    with pytest.raises(ValueError, match=r"recipe: optimizer must be one of adamw, muon.*got 'sgd'"):
        Recipe(optimizer="sgd")
