"""The folder of one evaluation: its settings, and each image's record and restoration."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from f2d.evaluation.record import Record, dumps
from f2d.metrics.measure import About
from f2d.replacing import remove_leftovers, replacing

SETTINGS, RECORDS, RESTORED = "evaluation.json", "images", "restored"
RESULTS = "results.json"
LONGEST = 200  # bytes of a file name; file systems allow 255, including suffixes and temporary names


@dataclass(frozen=True)
class Settings:
    """The settings of an evaluation: two runs with equal settings give equal numbers on one machine.

    name: the method's name in tables. model: a preset or checkpoint folder, or None for images of another method, whose
    folder is outputs. digest: SHA-256 of the weights. options: steps, sampler, seed, precision. data: preset=folder, an
    argument of `open_data`. conventions: name -> {"text": description, "keys": keys of its measures}. measures: in the
    order of the tables. absent: measure -> the reason why it is unavailable.
    """

    name: str
    model: str | None
    outputs: str | None
    digest: str | None
    options: dict[str, Any]
    data: str
    conventions: dict[str, dict[str, Any]]
    measures: tuple[About, ...]
    absent: dict[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """A short hash of all settings that the measures of an image depend on."""
        values = asdict(self)
        for name in ("name", "conventions", "absent"):
            del values[name]
        return hashlib.sha256(dumps(values).encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict) -> "Settings":
        """Convert JSON back to settings; the inverse of `dataclasses.asdict`."""
        return cls(**{**values, "measures": tuple(About(*about) for about in values["measures"])})


class EvaluationFolder:
    """``evaluation.json``, ``images/<name>.json`` and ``restored/<name>.png`` in one folder."""

    def __init__(self, path: Path, settings: Settings):
        self.path, self.settings = path, settings

    @classmethod
    def open(cls, path: Path) -> "EvaluationFolder":
        """Open an existing evaluation; raise ValueError if there is none."""
        file = path / SETTINGS
        try:
            return cls(path, Settings.from_dict(json.loads(file.read_text(encoding="utf-8"))))
        except FileNotFoundError:
            raise ValueError(
                f"{path} contains no evaluation (no {SETTINGS}), which f2d eval ... -o {path} writes"
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file} is damaged ({error})") from None

    def create(self) -> None:
        """Write the settings."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.path / SETTINGS) as part:
            part.write_text(dumps(asdict(self.settings)), encoding="utf-8")

    def restored(self, name: str) -> Path:
        """Return the file of a case's restoration, an 8-bit PNG."""
        return self.path / RESTORED / _file_name(name, ".png")

    def record(self, name: str) -> Record | None:
        """Return the record of a case, None if there is none under these settings; ValueError if it is damaged."""
        try:
            found = _read(self._file(name))
        except FileNotFoundError:
            return None
        return found if found.settings == self.settings.key else None

    def write(self, record: Record) -> None:
        """Write a record atomically."""
        file = self._file(record.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_text(replace(record, settings=self.settings.key).to_json(), encoding="utf-8")

    def remove_leftovers(self, names: Iterable[str]) -> None:
        """Remove temporary files of cases that killed processes left; only the caller evaluates these cases."""
        remove_leftovers([path for name in names for path in (self._file(name), self.restored(name))])

    def names(self) -> list[str]:
        """Return the images of the last results; for an unfinished evaluation, all that have a record."""
        with suppress(OSError, ValueError, KeyError):
            return list(json.loads((self.path / RESULTS).read_text(encoding="utf-8"))["pictures"])
        return sorted(_read(file).name for file in (self.path / RECORDS).rglob("*.json"))

    def remove(self, name: str) -> None:
        """Remove a case's record, then its image, so that no record is ever without its image."""
        self._file(name).unlink(missing_ok=True)
        self.restored(name).unlink(missing_ok=True)

    def remove_others(self, names: Iterable[str]) -> None:
        """Remove the records and images of all cases but `names`; files that no evaluation wrote are kept."""
        ours = {self._file(name) for name in names}
        for file in set((self.path / RECORDS).rglob("*.json")) - ours:
            with suppress(OSError, ValueError):  # another process has removed it, or it is no record
                name = _read(file).name
                if self._file(name) == file:  # not a copy, whose name is that of another file
                    self.remove(name)

    def _file(self, name: str) -> Path:
        return self.path / RECORDS / _file_name(name, ".json")


def names_of(folders: Sequence[EvaluationFolder]) -> tuple[str, ...]:
    """Return the methods' names in the settings, with the folder if two names are equal."""
    names = [folder.settings.name for folder in folders]
    return tuple(name if names.count(name) == 1 else f"{name} ({folder.path})" for name, folder in zip(names, folders))


def _read(file: Path) -> Record:
    try:
        return Record.from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): run f2d eval again") from None


def _file_name(name: str, suffix: str) -> str:
    """Shorten a name that is too long for a file, replacing its end by a digest."""
    head, slash, last = name.rpartition("/")
    if len(last.encode()) > LONGEST:
        last = f"{last[:40]} {hashlib.sha256(last.encode()).hexdigest()[:16]}"
    return f"{head}{slash}{last}{suffix}"
