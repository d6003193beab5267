"""Counts of the photographs restored, skipped and failed, in one process and over all ranks."""

import hashlib
import time
from dataclasses import asdict, dataclass

from f2d.cli import STARTED
from f2d.cli.console import out, report_error
from f2d.cli.files import Job
from f2d.cli.ranks import Board


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

    def summarize(self, ranks: int = 1) -> None:
        """Print the last line of the command, unless everything failed: failures have printed their own lines."""
        if not (self.restored or self.skipped):
            return
        skipped = f", {self.skipped} skipped (they exist, and --overwrite replaces them)" if self.skipped else ""
        where = f" on {ranks} ranks" if ranks > 1 else ""
        out.print(
            f"{self.restored} restored, {self.failed} failed{skipped}{where}; model {self.model_seconds:.2f} s, "
            f"whole command {time.perf_counter() - STARTED:.2f} s"
        )

    def merge(self, board: Board, jobs: list[Job]) -> bool:
        """Add the reports of all ranks on rank 0, where a missing one counts as a failure; report to it on the others.

        Returns True where rank 0 has taken over the report, and with it the summary and the exit code.
        """
        listing = hashlib.sha1("\0".join(str(job.source) for job in jobs).encode(errors="surrogateescape")).hexdigest()
        if board.place.rank:
            return board.report({**asdict(self), "listing": listing})
        for rank, numbers in board.gather():
            if numbers is None:
                self.fail(f"rank {rank} stopped without a report (rerun the command to finish its share)")
                continue
            if numbers.pop("listing") != listing:
                self.fail(f"rank {rank} found different photographs from rank 0 (files changed, so rerun the command)")
            for name, value in numbers.items():
                setattr(self, name, getattr(self, name) + value)
        return False
