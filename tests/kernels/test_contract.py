"""What every op promises beyond numbers, for each in turn: PyTorch integration, and gradients of any subset."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch.utils.checkpoint import checkpoint

from .cases import DEVICE
from .contracts import CONTRACTS, Contract
from .support import assert_compiles_once, running_on

SIZE, SEED = (6, 7), 3
each_op = pytest.mark.parametrize("op", CONTRACTS, ids=str)


def tensors(result: Tensor | tuple[Tensor, ...]) -> Sequence[Tensor]:
    return result if isinstance(result, tuple) else (result,)


def loss(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return sum(tensor.square().sum() for tensor in tensors(result))


def leaves_of(op: Contract) -> list[Tensor]:
    return [leaf.requires_grad_() for leaf in op.leaves(SIZE)]


@pytest.mark.parametrize(
    ("op", "index"), [(op, i) for op in CONTRACTS for i in range(op.count)], ids=lambda value: str(value)
)
def test_opcheck(op, index):
    samples = list(op.samples())
    assert len(samples) == op.count
    torch.library.opcheck(*samples[index])


@each_op
@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_compiles_as_one_graph_with_dynamic_shapes_without_recompiling(op, backend):
    seed = torch.tensor([7], device=DEVICE)
    assert_compiles_once(backend, op.step, lambda size: [*op.leaves(size), seed])


@each_op
def test_compiled_gradients_through_inductor_equal_eager(op):
    eager, compiled = leaves_of(op), leaves_of(op)
    loss(op.step(*eager, SEED)).backward()
    torch.compile(lambda *leaves: loss(op.step(*leaves, SEED)), fullgraph=True)(*compiled).backward()
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("op", [op for op in CONTRACTS if op.names == ("group_norm_silu",)], ids=str)
def test_compiled_autograd_traces_the_backward_pass_without_a_break(op):
    """By code that all ops share; each takes seconds to trace."""
    eager, traced = leaves_of(op), leaves_of(op)
    loss(op.step(*eager, SEED)).backward()
    result = loss(op.step(*traced, SEED))
    with compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        result.backward()
    for a, b in zip(eager, traced, strict=True):
        assert torch.equal(a.grad, b.grad)


@each_op
def test_export_keeps_the_ops_whole(op):
    class Step(torch.nn.Module):
        def forward(self, *leaves):
            return op.step(*leaves, SEED)

    leaves = tuple(op.leaves(SIZE))
    program = torch.export.export(Step(), leaves)
    assert {f"f2d_kernels.{name}.default" for name in op.names} <= {str(node.target) for node in program.graph.nodes}
    for a, b in zip(tensors(program.module()(*leaves)), tensors(Step()(*leaves)), strict=True):
        assert torch.equal(a, b)


@each_op
def test_activation_checkpointing_gives_the_same_gradients(op):
    plain, again = leaves_of(op), leaves_of(op)
    loss(op.step(*plain, SEED)).backward()
    loss(checkpoint(op.step, *again, SEED, use_reentrant=False)).backward()
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a.grad, b.grad)


@each_op
def test_vmap_equals_a_loop(op):
    before, (leaf, *after) = op.leaves(SIZE)[: op.mapped], op.leaves(SIZE)[op.mapped :]

    def step(value: Tensor) -> Tensor | tuple[Tensor, ...]:
        return op.step(*before, value, *after, SEED)

    mapped = torch.func.vmap(step)(torch.stack([leaf, 2 * leaf]))
    for a, b in zip(tensors(mapped), tensors(step(2 * leaf)), strict=True):
        assert torch.equal(a[1], b)


@pytest.mark.parametrize(
    ("op", "wanted", "backend"),
    [
        pytest.param(op, wanted, *getattr(backend, "values", (backend,)), marks=getattr(backend, "marks", ()))
        for op in CONTRACTS
        for wanted in op.subsets
        for backend in op.backends
    ],
    ids=str,
)
def test_any_subset_of_gradients(op, wanted, backend):
    full, part = (op.some_leaves((5, 7)) for _ in range(2))
    for i, (a, b) in enumerate(zip(full, part, strict=True)):
        a.requires_grad_()
        b.requires_grad_(i in wanted)
    with running_on(backend):
        loss(op.some_step(*full)).backward()
        result = loss(op.some_step(*part))
        assert result.requires_grad == bool(wanted)
        if wanted:
            result.backward()
    for i, (a, b) in enumerate(zip(full, part, strict=True)):
        assert (b.grad is not None) == (i in wanted)
        if i in wanted:
            torch.testing.assert_close(b.grad, a.grad, **({"rtol": 0, "atol": 0} if op.exact else {}))
