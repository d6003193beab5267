"""The record of one image of an evaluation, as stored in a file."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from f2d.metrics.localisation import Located


@dataclass(frozen=True)
class Record:
    """The measurements of one image.

    name and category are those of its case. values are the restoration's measures by key, and input those of the
    degraded image. gates and presence are by factor, empty for methods without factors. effective: factor -> gate times
    mean map. selectivity: definition -> (numerator, denominator). localisation: present factor -> comparison of its map
    with the ground-truth mask; empty without maps or masks. seconds: time of the restoration alone. peak_memory: peak
    bytes of the process (on a GPU: of its allocator) so far. error: the reason why there are no measurements, or None.
    files: hash of the files (see `Case.files`). settings: `Settings.key`, filled in by `EvaluationFolder.write`. data:
    hash of the data's files alone. scene: see `Case.scene`, "" if there are no measurements.
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
    localisation: dict[str, Located] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory: int = 0
    error: str | None = None
    files: str = ""
    settings: str = ""
    effective: dict[str, float] = field(default_factory=dict)
    data: str = ""
    scene: str = ""

    def to_json(self) -> str:
        """Convert to a JSON object; infinity and NaN, which JSON lacks, become "inf" and "nan"."""
        values = asdict(self)
        values["localisation"] = {factor: one._asdict() for factor, one in self.localisation.items()}
        return dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Invert `to_json`; raise ValueError, which names the fields that are missing, for any other text."""
        try:
            values = json.loads(text)
            missing = [each.name for each in fields(cls) if each.name not in values]
            if missing:
                raise ValueError(f"not a record of a picture (without {', '.join(missing)})")
            for name in ("values", "input", "gates", "presence", "effective"):
                values[name] = {key: float(value) for key, value in values[name].items()}
            values["selectivity"] = {key: tuple(map(float, pair)) for key, pair in values["selectivity"].items()}
            values["localisation"] = {
                factor: Located(**{name: float(value) for name, value in one.items()})
                for factor, one in values["localisation"].items()
            }
            return cls(**values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a record of a picture ({error})") from None


def dumps(value: Any) -> str:
    """Convert to JSON; infinity and NaN become strings that `float` reads."""
    return in_unicode(json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def in_unicode(text: str) -> str:
    r"""Escape the bytes of file names that are not Unicode, which no text file can hold: \xff becomes ``\udcff``.

    JSON reads such an escape as the same byte again.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
