"""Worker threads that take sweeps from the queue: one that waits for the store does not block the others."""

import logging
import threading
import time

from surogate_bench.errors import BenchError, TransientError
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.queue.work_queue import WorkQueue
from surogate_bench_orchestrator.controller.sweep.reconciler import SweepReconciler

_log = logging.getLogger(__name__)

_THREADS = 8
_IDLE_S = 60.0
_HUNG_AFTER_S = 900.0
"""Longer than the sum of all deadlines within one reconcile."""


class Workers:
    """Reconciles the sweeps in the queue.

    Args:
        queue: Names that are due.
        reconciler: Reconciles one of them.
        metrics: Counts reconciles and errors.
    """

    def __init__(self, queue: WorkQueue, reconciler: SweepReconciler, metrics: Metrics) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(_THREADS)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Wait for running reconciles, at most ``timeout_s``: another controller can continue from any point."""
        self._stopping.set()
        self._queue.close()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def unhealthy_reason(self) -> str:
        """Return why the process should be restarted; empty if it is healthy."""
        if self._stopping.is_set() or not self._threads[0].ident:
            return ""
        if dead := [thread.name for thread in self._threads if not thread.is_alive()]:
            return f"threads ended: {', '.join(dead)}"
        hung = self._queue.longest_work_s()
        return f"a reconcile takes {hung:.0f} s" if hung > _HUNG_AFTER_S else ""

    def _work(self) -> None:
        while not self._stopping.is_set():
            name = self._queue.take(_IDLE_S)
            if name is not None:
                self._reconcile(name)

    def _reconcile(self, name: str) -> None:
        with self._metrics.reconciles.time():
            try:
                resync_after_s = self._reconciler.reconcile(name)
            except TransientError as error:
                self._fail(name, str(error))
                return
            except BenchError as error:
                self._fail(name, f"{type(error).__name__}: {error}")
                return
            except Exception:  # noqa: BLE001 - the thread's boundary: an error in one sweep must not end the others
                _log.exception("an unexpected error while sweep %s was reconciled", name)
                self._fail(name, "unexpected error")
                return
        self._queue.done(name, again_after_s=resync_after_s)

    def _fail(self, name: str, reason: str) -> None:
        self._metrics.errors.inc()
        delay = self._queue.failed(name)
        _log.warning("sweep %s is reconciled again in %g s: %s", name, delay, reason)
