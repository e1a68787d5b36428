"""The loop: several threads that take sweeps from the queue, so that one that hangs in the store holds up no other."""

import logging
import threading
import time

from surogate_bench.errors import BenchError, TransientError
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.queue.work_queue import WorkQueue
from surogate_bench_orchestrator.controller.sweep.reconciler import Reconciler

_log = logging.getLogger(__name__)

_THREADS = 8
_IDLE_S = 60.0
_HUNG_AFTER_S = 900.0
"""Longer than every deadline inside one turn together."""


class Loop:
    """Works the queue off.

    Args:
        queue: Names that are due.
        reconciler: What is done with them.
        metrics: Where turns are counted.
    """

    def __init__(self, queue: WorkQueue, reconciler: Reconciler, metrics: Metrics) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"loop-{number}", daemon=True) for number in range(_THREADS)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Let every turn end, or leave it after a while: another controller goes on from anywhere."""
        self._stopping.set()
        self._queue.close()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def trouble(self) -> str:
        """Why the process should be restarted; empty if it is well."""
        if self._stopping.is_set() or not self._threads[0].ident:
            return ""
        if dead := [thread.name for thread in self._threads if not thread.is_alive()]:
            return f"threads ended: {', '.join(dead)}"
        hung = self._queue.longest_work_s()
        return f"a turn takes {hung:.0f} s" if hung > _HUNG_AFTER_S else ""

    def _work(self) -> None:
        while not self._stopping.is_set():
            name = self._queue.take(_IDLE_S)
            if name is not None:
                self._turn(name)

    def _turn(self, name: str) -> None:
        with self._metrics.turns.time():
            try:
                again_after_s = self._reconciler.turn(name)
            except TransientError as error:
                self._fail(name, str(error))
                return
            except BenchError as error:
                self._fail(name, f"{type(error).__name__}: {error}")
                return
            except Exception:  # noqa: BLE001 - the thread's boundary: one sweep's trouble must not end the others
                _log.exception("an unexpected error in the turn of sweep %s", name)
                self._fail(name, "unexpected error")
                return
        self._queue.done(name, again_after_s=again_after_s)

    def _fail(self, name: str, why: str) -> None:
        self._metrics.errors.inc()
        delay = self._queue.failed(name)
        _log.warning("sweep %s is looked at again in %g s: %s", name, delay, why)
