"""The bar of a command that goes through many pictures."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from f2d.cli.console import err


def bar_of(what: str, total: int) -> Progress:
    """A bar with its one task; what: such as "restoring"."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=err, transient=True)
    progress.add_task(what, total=total)
    return progress


@contextmanager
def up(bar: Progress, wanted: bool) -> Iterator[None]:
    """The bar is up while a picture is worked on and gone when its line is printed; in a pipe there is none."""
    if not (wanted and err.is_terminal):
        yield
        return
    with bar:
        yield
