"""Counts of the photographs that one process restored, skipped and failed."""

import time
from dataclasses import dataclass

from f2d.cli import STARTED
from f2d.cli.console import out, report_error, shown, warn
from f2d.cli.folders import LeftOut
from f2d.cli.ranks import ALONE, Place


@dataclass
class Counts:
    """Numbers of photographs, and the model's seconds over all of them."""

    restored: int = 0
    failed: int = 0
    skipped: int = 0
    model_seconds: float = 0.0

    def fail(self, message: object) -> None:
        """Count one failure and print its line to stderr."""
        report_error(message)
        self.failed += 1

    def summarize(self, place: Place = ALONE) -> None:
        """Print the last line of a process, unless everything failed: failures have printed their own lines."""
        if not (self.restored or self.skipped):
            return
        where = f"rank {place.rank} of {place.world}: " if place.world > 1 else ""
        out.print(
            f"{where}{done(self.restored, self.failed, self.skipped)}; model {self.model_seconds:.2f} s, "
            f"whole command {time.perf_counter() - STARTED:.2f} s"
        )


def done(restored: int, failed: int, skipped: int) -> str:
    """Return the numbers of photographs as text."""
    kept = f", {skipped} skipped (outputs exist; --overwrite replaces them)" if skipped else ""
    return f"{restored} restored, {failed} failed{kept}"


def tell_left_out(left_out: LeftOut) -> None:
    """Print the files that were not read, as a warning if photographs are among them."""
    if left_out.photographs:
        warn(left_out)
    elif left_out:
        out.print(shown(left_out))
