"""SIGTERM and Ctrl-C, held back until training is at a point that a checkpoint can describe."""

import signal
from types import FrameType, TracebackType
from typing import Self

from surogate_bench.service import Terminated


class HeldSignals:
    """While entered, the two signals only set a flag; :meth:`check` raises when it is set."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._received = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Return, or stop.

        Raises:
            Terminated: a signal has arrived.
        """
        if self._received:
            raise Terminated

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True
