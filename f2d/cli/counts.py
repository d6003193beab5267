"""What became of the photographs of one command, and of the others' share of them."""

import hashlib
import time
from dataclasses import asdict, dataclass

from f2d.cli import STARTED
from f2d.cli.console import out, report_error
from f2d.cli.files import Job
from f2d.cli.ranks import Board


@dataclass
class Counts:
    """Numbers of photographs, and seconds of the model in all of them."""

    restored: int = 0
    failed: int = 0
    skipped: int = 0
    model_seconds: float = 0.0

    def fail(self, message: object) -> None:
        """One line on stderr for one thing that failed."""
        report_error(message)
        self.failed += 1

    def summarize(self, ranks: int = 1) -> None:
        """The last line of the command, unless there is nothing in it but failures, which have their lines."""
        if not (self.restored or self.skipped):
            return
        skipped = f", {self.skipped} skipped (there already; --overwrite replaces)" if self.skipped else ""
        where = f" on {ranks} ranks" if ranks > 1 else ""
        out.print(
            f"{self.restored} restored, {self.failed} failed{skipped}{where}; model {self.model_seconds:.2f} s, "
            f"whole command {time.perf_counter() - STARTED:.2f} s"
        )

    def merge(self, board: Board, jobs: list[Job]) -> bool:
        """Rank 0: add what the others report; a rank without a report is a failure. The others: report to rank 0.

        True where rank 0 has taken the report over, and with it the summary and the exit code.
        """
        listing = hashlib.sha1("\0".join(str(job.source) for job in jobs).encode(errors="surrogateescape")).hexdigest()
        if board.place.rank:
            return board.report({**asdict(self), "listing": listing})
        for rank, numbers in board.gather():
            if numbers is None:
                self.fail(f"rank {rank} stopped without a report: run the command again for what it left")
                continue
            if numbers.pop("listing") != listing:
                self.fail(f"rank {rank} found other photographs than rank 0, as files came or went: run it again")
            for name, value in numbers.items():
                setattr(self, name, getattr(self, name) + value)
        return False
