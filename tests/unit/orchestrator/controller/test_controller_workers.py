"""The workers that reconcile the sweeps in the queue."""

import logging
import threading
from collections.abc import Iterator

import pytest
from waiting import PATIENCE_S, until

from surogate_bench.errors import TransientError
from surogate_bench_orchestrator.controller.metrics.exposition import Metrics
from surogate_bench_orchestrator.controller.queue.work_queue import WorkQueue
from surogate_bench_orchestrator.controller.queue.workers import Workers


class FakeReconciler:
    """A reconciler that hangs, fails or succeeds, by the name of the sweep."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.changed = threading.Condition()
        self.hold = threading.Event()

    def reconcile(self, name: str) -> float | None:
        with self.changed:
            self.names.append(name)
            self.changed.notify_all()
        if name == "hangs":
            assert self.hold.wait(PATIENCE_S)
        if name == "unreachable" and self.names.count("unreachable") == 1:
            raise TransientError("no route")
        if name == "broken" and self.names.count("broken") == 1:
            raise ValueError("a bug")
        return None

    def wait(self, names: list[str]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: sorted(self.names) == sorted(names), PATIENCE_S)


@pytest.fixture
def reconciler() -> FakeReconciler:
    return FakeReconciler()


@pytest.fixture
def queue(reconciler: FakeReconciler) -> Iterator[WorkQueue]:
    made = WorkQueue(gap_s=0.01)
    workers = Workers(made, reconciler, Metrics())  # stands for a SweepReconciler
    assert workers.unhealthy_reason() == ""
    workers.start()
    yield made
    reconciler.hold.set()
    workers.stop(PATIENCE_S)
    assert workers.unhealthy_reason() == ""


def test_a_reconcile_that_hangs_does_not_block_other_sweeps(queue: WorkQueue, reconciler: FakeReconciler) -> None:
    queue.add("hangs")
    reconciler.wait(["hangs"])
    queue.add("other")
    reconciler.wait(["hangs", "other"])


def test_a_reconcile_that_fails_is_repeated_whatever_the_error(
    queue: WorkQueue, reconciler: FakeReconciler, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        queue.add("unreachable")
        queue.add("broken")
        reconciler.wait(["unreachable", "unreachable", "broken", "broken"])
        # Another thread may take the name again before this one has logged why.
        until(lambda: "no route" in caplog.text and "a bug" in caplog.text, "both reasons are logged")
