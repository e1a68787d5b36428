"""Ctrl-C and SIGTERM stop a sweep gracefully: the next pass raises, and child processes are stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal requested a stop."""


class StopRequest:
    """Records whether a signal has requested a stop."""

    def __init__(self) -> None:
        self._requested = False

    def set(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle a signal; a second one has no effect, as children have a limited time to stop anyway."""
        self._requested = True

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self._requested:
            raise Interrupted


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handle the signals that request a stop; the previous handlers are restored at the end."""
    request = StopRequest()
    previous = {number: signal.signal(number, request.set) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
