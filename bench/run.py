"""`python -m bench.run`: time the ops and whole models against eager PyTorch, torch.compile and the memory ceiling.

Exit codes: 0, all cases were measured; 1, a result was wrong (no figure of that case is printed); 2, wrong usage.
"""

import argparse
import itertools
import os
import sys
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch._inductor import config as inductor_config

from bench import report
from bench.cases import ops
from bench.environment import environment
from bench.measure import OpMeasurement, RedGateError, Row, Settings
from bench.memory import keep_freed_memory, return_freed_memory
from bench.models import MODELS, ModelMeasurement
from bench.providers import missing_backends
from bench.registry import MODES, Case

ALLOCATORS = {"keep": keep_freed_memory, "system": lambda: True, "fresh": return_freed_memory}


def arguments_of(command_line: list[str] | None) -> argparse.Namespace:
    names = [*ops(), *MODELS]
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    add = parser.add_argument
    add("--ops", default=",".join(names), help=f"comma-separated: {', '.join(names)} (default: all)")
    add("--cases", default="*", metavar="GLOB", help="only cases whose name matches, for example 'lite/*/bf16*'")
    add("--modes", default=",".join(MODES), help="comma-separated: forward, backward, both (default: all)")
    add("--providers", default="*", metavar="GLOBS", help="names or roles, for example 'ours,eager*'")
    add("--quick", action="store_true", help="a few cases per op, fewer samples")
    add("--threads", type=int, help="CPU threads (default: PyTorch's)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device to measure (default: a GPU if found)")
    add("--seconds", type=float, metavar="S", help="start no further case after S seconds, and list the skipped ones")
    add(
        "--allocator",
        choices=tuple(ALLOCATORS),
        default="keep",
        help="CPU: reuse freed memory (keep), the C library's default (system), or new memory for every result (fresh)",
    )
    add("--json", type=Path, metavar="FILE", help="write all rows as JSON")
    add("--csv", type=Path, metavar="FILE", help="write all rows as CSV")
    add("--compare", type=Path, metavar="OLD.json", help="print the ratios to an earlier result")
    add("--list", action="store_true", help="print the cases and exit")
    options = parser.parse_args(command_line)

    options.ops, options.modes = options.ops.split(","), tuple(options.modes.split(","))
    for chosen, known, what in ((options.ops, names, "op"), (options.modes, MODES, "mode")):
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"unknown {what} {', '.join(unknown)} (known: {', '.join(known)})")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    try:
        options.compare = report.from_json(options.compare.read_text())[0] if options.compare else None
    except (OSError, ValueError) as error:
        parser.error(f"--compare: {error}")
    options.selected = selected(options)
    if not options.selected:
        parser.error(f"no case of {', '.join(options.ops)} matches {options.cases!r} (--list shows all)")
    return options


def selected(options: argparse.Namespace) -> list[Case]:
    """Select the cases to run. With a time limit, they alternate between the ops, so that every op is measured."""
    found = {**{name: op.cases for name, op in ops().items()}, **MODELS}

    def wanted(case: Case) -> bool:
        on_device = options.device == "cuda" or not case.options.get("gpu_only")
        return fnmatch(case.name, options.cases) and (case.quick or not options.quick) and on_device

    columns = [list(filter(wanted, found[name])) for name in options.ops]
    if options.seconds is None:
        return [case for column in columns for case in column]
    return [case for row in itertools.zip_longest(*columns) for case in row if case is not None]


class Results:
    """The rows so far. They are saved after each case, because an external time limit may end the run."""

    def __init__(self, options: argparse.Namespace, about: dict[str, str]):
        self.options, self.about = options, about
        self.rows: list[Row] = []
        self.left_out: list[str] = []

    def save(self) -> None:
        if self.options.json:
            report.write(self.options.json, report.to_json(self.rows, self.about, self.left_out))
        if self.options.csv:
            report.write(self.options.csv, report.to_csv(self.rows))


def settings_of(options: argparse.Namespace) -> Settings:
    return Settings(
        device=torch.device(options.device),
        samples=12 if options.quick else 30,
        seconds=4.0 if options.quick else 20.0,
        modes=options.modes,
        providers=tuple(options.providers.split(",")),
    )


def run(options: argparse.Namespace) -> int:
    settings, start = settings_of(options), time.perf_counter()
    allocator = options.allocator if settings.device.type == "cpu" and ALLOCATORS[options.allocator]() else "system"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    about = environment(settings.device) | {
        "allocator": {"keep": "keeps freed memory", "fresh": "returns freed memory"}.get(allocator, "system"),
        "load": f"{load:.1f} on {cores} cores at the start",
    }
    results = Results(options, about)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    if load > 0.5 * cores:
        print("This machine is busy, so medians, and above all the shares of the ceiling, will be wrong.")
    for name, reason in missing_backends(settings.device).items():
        print(f"backend {name} is not available: {reason}")
    measurements: dict[str, OpMeasurement | ModelMeasurement]
    measurements = {name: OpMeasurement(op, settings) for name, op in ops().items()}
    measurements |= {name: ModelMeasurement(settings) for name in MODELS}
    red = []
    print(report.header())
    for case in options.selected:
        if options.seconds is not None and time.perf_counter() - start > options.seconds:
            results.left_out.append(f"{case.op} {case.name}: no time left")
            continue
        try:
            for rows in measurements[case.op].rows(case):
                print(f"\n{case.op}  {case.name}  {rows[0].mode}", *report.lines(rows), sep="\n", flush=True)
                results.rows += rows
        except RedGateError as error:
            red.append(str(error))
            print(f"\nRED GATE, no figures: {error}", flush=True)
        except (ImportError, torch.OutOfMemoryError) as error:
            results.left_out.append(f"{case.op} {case.name}: {error}")
        results.save()
    print("\nSummary: speed-up of ours, geometric mean over the cases and worst case")
    print(*report.summary(results.rows), sep="\n")
    if options.compare is not None:
        print("", *report.compare(results.rows, options.compare), sep="\n")
    for line in results.left_out:
        print(f"skipped: {line}")
    for line in red:
        print(f"RED GATE: {line}", file=sys.stderr)
    return 1 if red else 0


def main(command_line: list[str] | None = None) -> int:
    options = arguments_of(command_line)
    if options.list:
        print(*(f"{case.op}  {case.name}" for case in options.selected), sep="\n")
        return 0
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # the baselines use full float32 too
    # otherwise a second run would reuse the compiled code, and its compile time would be meaningless
    inductor_config.force_disable_caches = True
    warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
    torch.manual_seed(0)
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
