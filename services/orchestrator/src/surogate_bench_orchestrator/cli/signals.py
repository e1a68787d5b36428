"""Ctrl-C and SIGTERM end a sweep in an orderly way: the next round notices, and children are stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user, or the system, asked to stop."""


class StopRequest:
    """Remembers that a signal asked to stop."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle a signal; a second one changes nothing, as children get a limited time to stop anyway."""
        self._asked = True

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self._asked:
            raise Interrupted


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Take over the signals that ask to stop."""
    request = StopRequest()
    before = {number: signal.signal(number, request.ask) for number in _STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
