"""Counts of the photographs that one process restored, skipped and failed."""

import time
from dataclasses import dataclass

from f2d.cli import STARTED
from f2d.cli.console import out, report_error
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
        skipped = f", {self.skipped} skipped (they exist, and --overwrite replaces them)" if self.skipped else ""
        where = f"rank {place.rank} of {place.world}: " if place.world > 1 else ""
        out.print(
            f"{where}{self.restored} restored, {self.failed} failed{skipped}; model {self.model_seconds:.2f} s, "
            f"whole command {time.perf_counter() - STARTED:.2f} s"
        )
