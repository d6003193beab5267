"""Muon for matrices, AdamW for everything else, as one optimiser."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """``M <- μ M + G;  W <- (1 - η λ) W - η · 0.2 √max(m, n) · O(G + μ M)``, O: `orthogonalised`; AdamW for vectors.

    W [m, n] is a matrix or a convolution kernel [out, in, h, w] seen as [out, in·h·w]; M starts at 0. The factor makes
    the root mean square of an update that of AdamW's, so that both share one learning rate η and weight decay λ.
    Parameters of fewer than two dimensions, and kernels with one input or output channel, take AdamW with `betas`.
    Frozen parameters are skipped. Results do not depend on the number of processes beyond the gradients' own rounding.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the factor: Liu et al.,
    "Muon is scalable for LLM training" (2025), which `torch.optim.Muon` calls match_rms_adamw. That class takes
    only two-dimensional parameters and works in bfloat16, one matrix at a time; here matrices of one shape are
    orthogonalised together in float32.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ):
        trained = [p for p in parameters if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if is_matrix(p)], "momentum": momentum},
            {"params": [p for p in trained if not is_matrix(p)], "momentum": None},
        ]
        super().__init__([g for g in groups if g["params"]], lr=lr, betas=betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["momentum"] is not None:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if group["momentum"] is None]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        momentum, rate = group["momentum"], group["lr"]
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
                state["step"] = torch.zeros(())  # AdamW expects it when it loads a state
            direction = p.grad.add(state["momentum"].mul_(momentum).add_(p.grad), alpha=momentum)
            matrix = direction.flatten(1)
            by_shape[matrix.shape].append((p, matrix))
        for (rows, columns), pairs in by_shape.items():
            updates = orthogonalised(torch.stack([matrix for _, matrix in pairs]))
            step = -rate * 0.2 * max(rows, columns) ** 0.5
            for (p, _), update in zip(pairs, updates, strict=True):
                p.mul_(1 - rate * group["weight_decay"]).add_(update.view(p.shape), alpha=step)


def is_matrix(parameter: Tensor) -> bool:
    """Return whether Muon updates it: at least two dimensions, and neither side of the matrix has length 1."""
    return parameter.ndim >= 2 and parameter.shape[0] > 1 and parameter[0].numel() > 1


def orthogonalised(matrices: Tensor) -> Tensor:
    """About ``U Vᵀ`` of each matrix ``U S Vᵀ`` [N, m, n]: its singular values moved to about 1 (0.7 to 1.2).

    Five Newton-Schulz iterations ``X <- Q X``, ``Q = a I + b A + c A²``, ``A = X Xᵀ``, from X divided by its Frobenius
    norm. All Q commute with A, so the iterations run on A of the shorter side alone (``A <- Q A Q``) and X is read
    twice: 2.6 times as fast as iterating on X for twenty [64, 576] on one core, with the same error (1e-6 in float32).
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    gram, product = x @ x.mT, None
    for last in (False,) * (ITERATIONS - 1) + (True,):
        q = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        q.diagonal(dim1=1, dim2=2).add_(a)
        product = q if product is None else q @ product
        gram = gram if last else q @ gram @ q
    x = product @ x
    return x.mT if tall else x
