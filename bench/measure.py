"""Measure the cases of an op; a row holds all measurements of one provider, case and mode."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch

from bench.ceiling import ceilings, copies
from bench.gate import Gate
from bench.memory import peak_bytes
from bench.providers import Inputs, Provider, input_sets, providers, thunk
from bench.registry import Case, Op
from bench.timing import Thunk, Times, host_microseconds, interleaved


@dataclass(frozen=True)
class Settings:
    """samples: target per row. seconds: limit per case and mode. providers: patterns of names or roles."""

    device: torch.device
    samples: int = 30
    seconds: float = 20.0
    modes: tuple[str, ...] = ("forward", "backward", "both")
    providers: tuple[str, ...] = ("*",)

    def wants(self, found: Any) -> bool:
        """Whether a provider, or a way to do a step, is to be measured."""
        return any(fnmatch(found.name, pattern) or fnmatch(found.role, pattern) for pattern in self.providers)


@dataclass(frozen=True)
class Row:
    """One line of the table; None means not measured for this row.

    ms, p20_ms, p80_ms: median and percentiles in milliseconds. gbps: least traffic divided by the median.
    ceiling_share, copy_share: speed relative to the ceiling loop and to copy_. peak_mib: results and temporaries of one
    call. extra_mib: for mode "both", the peak minus the returned gradients. host_us: host time of a call on a 4x4
    image. compile_s: time of the first call. ns_per_element: time per element of the result. rate, unit: of whole
    models.
    """

    op: str
    case: str
    variant: str
    mode: str
    provider: str
    role: str
    ms: float
    p20_ms: float
    p80_ms: float
    samples: int
    gbps: float | None = None
    ceiling_share: float | None = None
    copy_share: float | None = None
    peak_mib: float | None = None
    extra_mib: float | None = None
    host_us: float | None = None
    compile_s: float | None = None
    ns_per_element: float | None = None
    rate: float | None = None
    unit: str | None = None

    @classmethod
    def of(cls, case: Case, mode: str, name: str, role: str, times: Times, **more: Any) -> "Row":
        """Return the row of a provider or way that was timed."""
        clock = (times.median, times.p20, times.p80, times.samples)
        return cls(case.op, case.name, case.variant, mode, name, role, *clock, **more)


class RedGateError(RuntimeError):
    """A provider's result is wrong; the message names the case, the provider and the error."""


class OpMeasurement:
    """Measures the cases of one op; host times are measured once per variant and mode, on 4x4 images."""

    def __init__(self, op: Op, settings: Settings):
        self.op, self.settings = op, settings
        self._host: dict[tuple, float] = {}

    def rows(self, case: Case) -> Iterator[list[Row]]:
        """Yield the rows of each mode. Raises RedGateError before the case is timed if a provider is wrong."""
        device = self.settings.device
        torch.compiler.reset()
        gc.collect()
        sets = input_sets(self.op, case, device)
        chosen = [p for p in providers(self.op, case, device) if self.settings.wants(p)]
        compile_seconds = self._pass_gate(case, sets[0], chosen)
        for mode in case.modes:
            if mode in self.settings.modes:
                yield self._mode(case, mode, sets, chosen, compile_seconds)

    def _pass_gate(self, case: Case, inputs: Inputs, chosen: list[Provider]) -> dict[str, float]:
        """Return the seconds of each provider's first call; raise RedGateError if a provider is wrong."""
        gate = Gate(self.op, case, inputs)
        wrong = [f"{p.name}: {problem}" for p in chosen if (problem := gate.problem(p))]
        if wrong:
            raise RedGateError(f"{case.op} {case.name}: {'; '.join(wrong)}")
        return gate.seconds

    def _mode(
        self, case: Case, mode: str, sets: list[Inputs], chosen: list[Provider], compile_seconds: dict[str, float]
    ) -> list[Row]:
        device, traffic = self.settings.device, self.op.traffic(case, mode)

        @contextmanager
        def block(provider: Provider) -> Iterator[list[Thunk]]:
            with provider.running(), torch.set_grad_enabled(case.train):
                yield [thunk(provider, s, mode) for s in sets]

        timed = {p.name: partial(block, p) for p in chosen}
        loops = {f"ceiling:{name}": made for name, made in ceilings(traffic, len(sets), device).items()}
        loops["copy_"] = copies(traffic, len(sets), device)
        timed |= {name: lambda made=made: nullcontext(list(made)) for name, made in loops.items()}
        times = interleaved(timed, device, self.settings.samples, self.settings.seconds)

        ceiling = min(times[name].median for name in loops if name.startswith("ceiling"))
        copy = times["copy_"].median
        rows = []
        for provider in chosen:
            with provider.running(), torch.set_grad_enabled(case.train):
                peak = peak_bytes(thunk(provider, sets[0], mode), device)
            gradients = self._gradient_bytes(case, provider, sets[0])
            host = self._host_us(case, mode, provider)
            row = Row.of(
                *(case, mode, provider.name, provider.role, times[provider.name]),
                peak_mib=peak / 2**20,
                extra_mib=(peak - gradients) / 2**20 if mode == "both" else None,
                host_us=host,
                compile_s=compile_seconds[provider.name] if provider.role == "compile" else None,
            )
            rows.append(replace(row, ns_per_element=1e6 * row.ms / (case.image_bytes / case.dtype.itemsize)))
        for name in loops:
            rows.append(Row.of(case, mode, name, "copy" if name == "copy_" else "ceiling", times[name]))
        return [
            replace(row, gbps=traffic.total / row.ms / 1e6, ceiling_share=ceiling / row.ms, copy_share=copy / row.ms)
            for row in rows
        ]

    def _gradient_bytes(self, case: Case, provider: Provider, inputs: Inputs) -> int:
        """Return the memory of the returned gradients; one that is the incoming gradient itself (d_base) takes none."""
        if not case.train:
            return 0
        with provider.running():
            gradients = thunk(provider, inputs, "both")()
        given = {t.untyped_storage().data_ptr() for t in inputs.upstream}
        storages = {g.untyped_storage().data_ptr(): g.untyped_storage().nbytes() for g in gradients}
        return sum(size for where, size in storages.items() if where not in given)

    def _host_us(self, case: Case, mode: str, provider: Provider) -> float | None:
        """Measure the host time; None for mode "backward", because a backward pass alone cannot be repeated."""
        if mode == "backward":
            return None
        key = (case.variant, case.train, mode, provider.name)
        if key not in self._host:
            tiny = replace(case, batch=1, height=4, width=4)
            inputs = Inputs.new(self.op, tiny, self.settings.device)
            with provider.running(), torch.set_grad_enabled(case.train):
                self._host[key] = host_microseconds(thunk(provider, inputs, mode), self.settings.device)
        return self._host[key]
