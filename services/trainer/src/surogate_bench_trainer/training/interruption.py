"""Deferral of SIGTERM and SIGINT until training reaches a state that a checkpoint can store."""

import signal
from types import FrameType, TracebackType
from typing import Self

from surogate_bench.processes.service import Terminated


class HeldSignals:
    """A context in which the two signals only set a flag, on which :meth:`check` raises."""

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self._received = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._record) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal has arrived.

        Raises:
            Terminated: SIGTERM or SIGINT has arrived.
        """
        if self._received:
            raise Terminated

    def _record(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True
