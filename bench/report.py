"""Write rows as a table, a summary, CSV and JSON, and compare one result with another."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import geometric_mean

from bench.measure import Row
from f2d.replacing import replacing

# column: (width, text of a row)
COLUMNS = {
    "provider": (28, lambda r: r.provider),
    "ms": (10, lambda r: f"{r.ms:.3f}"),
    "p20": (10, lambda r: f"{r.p20_ms:.3f}"),
    "p80": (10, lambda r: f"{r.p80_ms:.3f}"),
    "n": (5, lambda r: str(r.samples)),
    "GB/s": (8, lambda r: _number(r.gbps, ".1f")),
    "ceiling": (8, lambda r: _number(r.ceiling_share, ".2f")),
    "copy_": (7, lambda r: _number(r.copy_share, ".2f")),
    "peak MiB": (10, lambda r: _number(r.peak_mib, ".1f")),
    "extra MiB": (10, lambda r: _number(r.extra_mib, ".1f")),
    "host us": (9, lambda r: _number(r.host_us, ".1f")),
    "compile s": (10, lambda r: _number(r.compile_s, ".1f")),
    "ns/element": (11, lambda r: _number(r.ns_per_element, ".3f")),
    "rate": (16, lambda r: "" if r.rate is None else f"{r.rate:.3f} {r.unit}"),
}


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def header() -> str:
    return "".join(f"{name:<{w}}" if name == "provider" else f"{name:>{w}}" for name, (w, _) in COLUMNS.items())


def lines(rows: Sequence[Row]) -> list[str]:
    """Return one line per provider of one case and mode, with only the fastest eager way."""
    fastest = min((r.ms for r in rows if r.role == "eager"), default=0.0)
    shown = [r for r in rows if r.role != "eager" or r.ms == fastest]
    return [
        "".join(f"{fill(r):<{w}}" if name == "provider" else f"{fill(r):>{w}}" for name, (w, fill) in COLUMNS.items())
        for r in shown
    ]


def by_case(rows: Iterable[Row]) -> dict[tuple[str, str, str, str], list[Row]]:
    """Map each (op, variant, mode, case) to its rows, in the order of measurement."""
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.op, row.variant, row.mode, row.case), []).append(row)
    return groups


def ratios(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], dict[str, dict[str, float]]]:
    """Map (op, variant, mode, our provider) -> role -> case to the role's time over ours, the speed-up of ours.

    Only the fastest eager way counts. Three more entries give the share of the ceiling and of copy_ that ours reaches,
    and its extra memory relative to that of the fastest eager way.
    """
    found: dict[tuple[str, str, str, str], dict[str, dict[str, float]]] = {}
    for (op, variant, mode, case), group in by_case(rows).items():
        best: dict[str, Row] = {}
        for row in group:
            if row.role not in ("ours", "copy", "ceiling") and (row.role not in best or row.ms < best[row.role].ms):
                best[row.role] = row
        for ours in (row for row in group if row.role == "ours"):
            into = found.setdefault((op, variant, mode, ours.provider), {})
            for role, row in best.items():
                into.setdefault(f"{role}/ours", {})[case] = row.ms / ours.ms
            for name, share in (("share of ceiling", ours.ceiling_share), ("share of copy_", ours.copy_share)):
                if share is not None:
                    into.setdefault(name, {})[case] = share
            eager = best.get("eager")
            if mode == "both" and eager and eager.extra_mib and ours.extra_mib is not None:
                into.setdefault("extra memory by eager's", {})[case] = max(ours.extra_mib, 1e-6) / eager.extra_mib
    return found


def summary(rows: Sequence[Row]) -> list[str]:
    """Give, per op, variant, mode and backend, the geometric mean over the cases and the worst case of each ratio."""
    found = []
    for (op, variant, mode, provider), kinds in ratios(rows).items():
        found.append(f"{op}{f' ({variant})' if variant else ''}, {mode}, {provider}")
        for kind, values in kinds.items():
            worst = (max if kind.startswith("extra") else min)(values, key=values.__getitem__)
            mean = geometric_mean(values.values())
            found.append(f"    {kind:<26}{mean:>8.2f}    worst {values[worst]:>6.2f}  {worst}   ({len(values)} cases)")
    return found


def compare(new: Sequence[Row], old: Sequence[Row]) -> list[str]:
    """Give new time / old time of every common row (below 1: faster now), and the geometric mean."""
    before = {(r.op, r.case, r.mode, r.provider): r for r in old}
    shared = [(r, before[key]) for r in new if (key := (r.op, r.case, r.mode, r.provider)) in before]
    if not shared:
        return ["nothing to compare: the two results have no row in common"]
    found = [f"{a.ms / b.ms:>7.3f}  {a.op} {a.case} {a.mode} {a.provider}" for a, b in shared]
    mean = geometric_mean(a.ms / b.ms for a, b in shared)
    return ["new / old (below 1: faster now)", *found, f"{mean:>7.3f}  geometric mean of {len(shared)} rows"]


def to_json(rows: Sequence[Row], environment: dict, left_out: Sequence[str] = ()) -> str:
    content = {"environment": environment, "left_out": list(left_out), "rows": [asdict(r) for r in rows]}
    return json.dumps(content, indent=1) + "\n"


def from_json(text: str) -> tuple[list[Row], dict]:
    """Return (rows, environment). Raises ValueError for any other text."""
    try:
        content = json.loads(text)
        return [Row(**row) for row in content["rows"]], content["environment"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a result of bench.run: {error}") from None


def to_csv(rows: Sequence[Row]) -> str:
    """Write a header, then one line per row; a cell is empty if it was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(r) for r in rows)
    return text.getvalue()


def write(path: Path, text: str) -> None:
    """Write under a temporary name, then rename, so that no reader sees an incomplete file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text)
