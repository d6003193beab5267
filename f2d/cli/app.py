"""Entry point of `f2d`; it imports little, so that Ctrl-C is answered with one line from the very start."""

import signal
import sys
from types import FrameType

from f2d.cli import INTERRUPTED


def main() -> None:
    """Run the command; Ctrl-C at any time prints one line and exits with code 130."""
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in a background job
        signal.signal(signal.SIGINT, interrupt)
    try:
        from f2d.cli.commands import app

        app()
    except BaseException:
        # an interrupted import may end as an ImportError, and Lightning turns the interrupt into SystemExit(1)
        if not interrupted:
            raise
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would only disturb the tidying up
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
