"""CUDA graphs: one replay replaces some three hundred launches; each image size needs its own graph."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from .engine import Engine

WARM_UPS = 3  # before a capture, for cuDNN to choose its algorithms and the allocator to find its blocks


def first_call(engine: Engine, most: int = 4) -> "Graphed":
    """``y -> (enhanced y, v(y, y, 0), gates, padded maps)`` as a graph, which suffices for a one-step restoration.

    y [B, 3, H, W] in [-1, 1]; without maps the last entry is missing. Every expert runs, with strength 1.
    """

    def call(y: Tensor) -> tuple[Tensor, ...]:
        predictor = engine.predictor(skipping=False)
        analysis = predictor.analyse(y)
        prediction, gates, _ = predictor.velocity(analysis.enhanced, analysis, 0)
        maps = () if analysis.padded_maps is None else (analysis.padded_maps,)
        return analysis.enhanced, prediction, gates, *maps

    return Graphed(call, most)


class Graphed:
    """``call(x)`` captured once per shape, type and layout of x, and replayed after that.

    call takes x and returns a tuple of tensors. It must consist of kernels only, like `first_call`: no `.item()`, no
    sizes that depend on values, and the same work for every x. `most` captured shapes are kept, each with the memory of
    its call; the least recently used one is dropped first. Results are copies, so later calls do not change them.
    Threads take turns, as a graph has one set of buffers. This class was written without a GPU, and the tests cover the
    parts that need none. Raises ValueError for an input that is not on a GPU.
    """

    def __init__(self, call: Callable[[Tensor], tuple[Tensor, ...]], most: int = 4):
        self.call, self.most = call, most
        self._captured: OrderedDict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.device.type != "cuda":
            raise ValueError(f"Graphed: the input must be on a GPU for CUDA graphs, got {x.device}")
        key = (x.shape, x.stride(), x.dtype, x.device)
        with self._lock, torch.cuda.device(x.device):
            if key not in self._captured:
                while len(self._captured) >= self.most:
                    self._captured.popitem(last=False)
                self._captured[key] = self._capture(x)
            self._captured.move_to_end(key)
            graph, entry, results = self._captured[key]
            entry.copy_(x)
            graph.replay()
            return tuple(result.clone() for result in results)

    def _capture(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
        entry = x.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self.call(entry)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = self.call(entry)
        return graph, entry, results
