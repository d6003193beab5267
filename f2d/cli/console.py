"""The terminal: printing, users' mistakes as one line and an exit code, the progress bar, SIGTERM."""

import functools
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from f2d.cli import INTERRUPTED

# soft_wrap: a path longer than the terminal stays one line, also in a pipe
out = Console(soft_wrap=True, highlight=False)
err = Console(soft_wrap=True, highlight=False, stderr=True)

FAILED, WRONG_USAGE = 1, 2
TERMINATED = 128 + signal.SIGTERM


def shown(path: object) -> str:
    """Return a path as one printable line: newlines, undecodable bytes and rich's markup are escaped."""
    return escape(
        "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))
    )


def report_error(message: object) -> None:
    """Print ``error: message`` as one line on stderr."""
    err.print(f"[bold red]error:[/] {shown(' '.join(str(message).split()))}")


def warn(message: object) -> None:
    """Print ``warning: message`` as one line on stderr."""
    err.print(f"[yellow]warning:[/] {shown(' '.join(str(message).split()))}")


def fail(message: object, code: int = WRONG_USAGE) -> NoReturn:
    """Print one line and leave with `code`: 2 for a command that cannot work, 1 for work that failed."""
    report_error(message)
    raise typer.Exit(code)


def one_line_errors(command: Callable) -> Callable:
    """Make a command print ValueError, OSError and an unavailable backend as one line, and exit with code 2.

    The package raises these for the user's input; any other error is a defect and keeps its traceback.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        warnings.showwarning = _one_line_warning
        # the commands name the backend themselves
        logging.getLogger("f2d_kernels").setLevel(logging.ERROR)
        # what Pillow logs about a damaged file is in that file's line
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:  # click would print an empty line; `main` prints one with a word
            raise typer.Exit(INTERRUPTED) from None
        except (ValueError, OSError) as error:
            fail(error)
        except RuntimeError as error:
            if type(error).__name__ != "BackendUnavailableError":  # importing the class would import PyTorch
                raise
            fail(error)

    return run


def _one_line_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if category is RuntimeWarning:
        warn(message)
    else:
        print(f"{category.__name__}: {message}", file=sys.stderr)


def bar_of(what: str, total: int | None, *more: ProgressColumn) -> Progress:
    """Return a progress bar with one task, described by `what`, for example "restoring". more: further columns."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn())
    progress = Progress(*columns, console=err, transient=True)
    progress.add_task(what, total=total)
    return progress


@contextmanager
def up(bar: Progress, wanted: bool) -> Iterator[None]:
    """Show the bar inside the block, so that it is gone when an image's line is printed; in a pipe there is none."""
    if not (wanted and err.is_terminal):
        yield
        return
    with bar:
        yield


@contextmanager
def without_library_messages() -> Iterator[None]:
    """Discard what C libraries print to stderr, as libtiff does about damage, which the file's own line reports."""
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def tidy_when_terminated() -> Iterator[None]:
    """Make SIGTERM, which launchers and schedulers send, end the command as Ctrl-C does, without half-written files."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
