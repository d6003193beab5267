"""How hypothesis draws the arguments of an op: dtypes, memory layouts, noise sources; and what a drawn call is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from f2d_kernels.reference.philox import normal

from .tolerances import NORMAL

Tensors = dict[str, Tensor]
JITTER = 4  # units of round-off by which an argument may be off
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SIZES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(120, 260)),
    st.sampled_from([(17, 31), (64, 64), (65, 67)]),  # the last has more pixels than a tile of the sums
)
LAYOUTS = ("contiguous", "contiguous", "channels_last", "channels_last", "sliced", "stepped", "expanded", "permuted")


@dataclass
class Case:
    """One call. `leaves` are its floating tensors by name; `drawn` is what the formula is told besides them (the noise
    that a seed stands for), which in the kernel may differ by `drawn_error`."""

    op: str
    leaves: Tensors
    call: Callable[[Tensors], Any]
    formula: Callable[[Tensors], Any]
    result_dtypes: list[torch.dtype | None]  # as KERNELS.md states them; None where it does not
    wanted: set[str] = field(default_factory=set)
    drawn: Tensors = field(default_factory=dict)
    drawn_error: float = NORMAL
    rounded_to: torch.dtype = torch.float64  # what an intermediate result is rounded to, where it is
    options: str = ""  # the rest of the arguments, for a report

    @property
    def unit(self) -> float:
        """Unit round-off of the coarsest arithmetic inside."""
        double = any(t.dtype == torch.float64 for t in self.leaves.values())
        return max(UNIT[torch.float64 if double else torch.float32], UNIT[self.rounded_to])


def lay_out(values: Tensor, order: list[int], step: int, offset: int, repeated: set[int]) -> Tensor:
    """`values` with its dimensions in memory in `order`, NaN before, between and behind, stride 0 along `repeated`."""
    small = values[tuple(slice(0, 1 if d in repeated else None) for d in range(values.dim()))]
    storage = torch.full([step * small.shape[d] + offset for d in order], float("nan"), dtype=values.dtype)
    view = storage.permute([order.index(d) for d in range(values.dim())])
    view = view[tuple(slice(offset, offset + step * size, step) for size in small.shape)]
    return view.copy_(small).expand(values.shape)


class Draw:
    """hypothesis' draw, with what all cases share: one dtype for all tensors or one for each, values by torch."""

    def __init__(self, draw: Callable[[st.SearchStrategy], Any]):
        self.draw = draw
        self.generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
        self.dtypes = draw(st.sampled_from([[d] for d in UNIT] + 2 * [[torch.float32, torch.bfloat16], list(UNIT)]))
        self.batch = draw(st.sampled_from([0, 1, 1, 2, 2, 3]))
        self.size = draw(SIZES)

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def values(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def tensor(self, *shape: int, values: Tensor | None = None) -> Tensor:
        values = (self.values(*shape) if values is None else values).to(self.pick(*self.dtypes))
        dims, layout = len(shape), self.pick(*LAYOUTS)
        order, repeated = list(range(dims)), set()
        if layout == "channels_last" and dims > 2:
            order.append(order.pop(-3))
        elif layout == "permuted":
            order = list(self.draw(st.permutations(order)))
        elif layout == "expanded" and dims:
            repeated = self.draw(st.sets(st.integers(0, dims - 1), min_size=1))
        return lay_out(values, order, 2 if layout == "stepped" else 1, 3 if layout == "sliced" else 0, repeated)

    def maybe(self, leaves: Tensors, name: str, *shape: int) -> None:
        if self.draw(st.booleans()):
            leaves[name] = self.tensor(*shape)

    def schedule(self, values: Tensor) -> Tensor:
        """A value per sample, or one for all."""
        if len(values) and self.pick(0, 0, 1):
            return self.tensor(values=values[0])
        return self.tensor(len(values), values=values)

    def noise(self, leaves: Tensors, drawn: Tensors, *shape: int) -> dict[str, Any]:
        """The noise arguments besides `noise` itself, which becomes a leaf or what the seed stands for."""
        source = self.pick("given", "int", "one", "each")
        if source == "given":
            leaves["noise"] = self.tensor(*shape)
            return {}
        count = self.batch if source == "each" and self.batch else 1
        seed = torch.tensor(self.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count)))
        stream, window = self.pick(0, 1, 65535), self.pick(None, (0, 3), (5, 6), (2**20, 2**20 + 1))
        drawn["noise"] = normal(torch.Size(shape), seed, stream, *(window or (0, 0))).float()
        return {"seed": int(seed[0]) if source == "int" else seed, "stream": stream, "window": window}

    def finish(self, case: Case) -> Case:
        case.wanted = self.draw(st.sets(st.sampled_from(sorted(case.leaves))))
        return case
