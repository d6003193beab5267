"""Hold SIGTERM and Ctrl-C back until a run can be left without loss."""

import signal
import threading
from types import FrameType
from typing import Any


class Stopping:
    """``stopping = Stopping(); ...; stopping.hold(); ...; if stopping.asked: save(); stopping.leave()``.

    `leave` gives the signal to the handler that was there when the object was made: Lightning sets its own later, which
    would end a run in the middle of a step. A second Ctrl-C is not held back; a second SIGTERM is, as launchers send it
    to a process and its group. Only the main thread receives signals; in another one nothing is held.
    """

    def __init__(self) -> None:
        self.asked = False
        self._number: int = signal.SIGTERM
        self._before: dict[int, Any] = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # Ctrl-C is ignored in a job in the background
                self._before[number] = handler

    def hold(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._before:
                signal.signal(number, self._note)

    def leave(self) -> None:
        """End as the signal would have ended the process at once; does not return."""
        self._restore()
        signal.raise_signal(self._number)
        raise SystemExit(128 + self._number)  # where the handler returned

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.asked and self._number == number == signal.SIGINT
        self.asked, self._number = True, number
        if again:
            self.leave()

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)
