"""The record of one image of an evaluation, as stored in a file."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from f2d.metrics.localisation import Located


@dataclass(frozen=True)
class Record:
    """One picture's numbers. name, category: of its case. values: of the restoration, by the keys of the measures;
    input: of the degraded picture itself. gates, presence: by factor, none for methods without factors. selectivity:
    definition -> (numerator, denominator). localisation: factor present -> its map compared with the true mask, empty
    without maps or true masks, None in records of versions that did not measure it. seconds: of the restoration alone;
    peak_memory: the most bytes the process (on a GPU its allocator) had taken until then. error: why there are no
    numbers, None where there are. files: of what they were made (see `Case.files`). settings: the `Settings.key` it was
    made under, entered by the folder it is written to.
    """

    name: str
    category: str
    width: int = 0
    height: int = 0
    values: dict[str, float] = field(default_factory=dict)
    input: dict[str, float] = field(default_factory=dict)
    gates: dict[str, float] = field(default_factory=dict)
    presence: dict[str, float] = field(default_factory=dict)
    selectivity: dict[str, tuple[float, float]] = field(default_factory=dict)
    localisation: dict[str, Located] | None = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory: int = 0
    error: str | None = None
    files: str = ""
    settings: str = ""

    def to_json(self) -> str:
        """Convert to one JSON object; numbers that JSON lacks become "inf" and "nan"."""
        values = asdict(self)
        if self.localisation is not None:
            values["localisation"] = {factor: one._asdict() for factor, one in self.localisation.items()}
        return dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The inverse; ValueError for anything else."""
        try:
            values = json.loads(text)
            for name in ("values", "input", "gates", "presence"):
                values[name] = {key: float(value) for key, value in values[name].items()}
            values["selectivity"] = {key: tuple(map(float, pair)) for key, pair in values["selectivity"].items()}
            located = values.setdefault("localisation", None)
            if located is not None:
                values["localisation"] = {
                    factor: Located(**{name: float(value) for name, value in one.items()})
                    for factor, one in located.items()
                }
            return cls(**values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a record of a picture ({error})") from None


def dumps(value: Any) -> str:
    """JSON in which no number is out of place: infinities and NaN as strings, which `float` reads."""
    return json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
