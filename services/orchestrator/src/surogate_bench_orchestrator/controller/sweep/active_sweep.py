"""One admitted sweep: the steps of a reconcile, and the state that is kept between reconciles.

That state may be lost: it is read again from the store and the cluster.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from surogate_bench.errors import BenchError, PermanentError, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.controller.reports.process import ReportRequest
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.controller.sweep.store_connection import NOT_USABLE
from surogate_bench_orchestrator.controller.sweep.submissions import RefusedSubmissions
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.reconcile import Action, Delete, Reuse, Submit, reconcile
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.ports import Runtime
from surogate_bench_orchestrator.resource.model import ResourceSweep
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.locks import LeaseLostError, SweepLock, resource_lease
from surogate_bench_orchestrator.sweep.runner import SweepDriver
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

_log = logging.getLogger(__name__)

STORE_AWAY = "StoreAway"
STORE_LOCKED = "StoreLocked"
CLUSTER_AWAY = "ClusterAway"
CLUSTER_REFUSED = "ClusterRefused"
_PARALLEL_DELETIONS = 8
_Answer = TypeVar("_Answer")


class ClusterRuntime(Runtime, Protocol):
    """A runtime whose tasks continue without the process that observes them."""

    def enforce_limits(self, names: Iterable[str]) -> None:
        """Stop tasks that are past a deadline or cannot start; they are observed as failed from then on."""
        ...

    def retire(self, name: str) -> None:
        """Schedule the removal of a finished task, whose result is in the store. Does nothing if it is unknown."""
        ...


class BlockedError(TransientError):
    """The sweep cannot continue, because of something outside it.

    Args:
        failure: The reason and message for the conditions.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class ActiveSweep:
    """A sweep that is being reconciled. Used by one thread at a time.

    Args:
        resource: The sweep.
        store: Object store for its results.
        runtime: Runs its tasks.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self, resource: ResourceSweep, store: ObjectStore, runtime: ClusterRuntime, clock: Callable[[], float]
    ) -> None:
        self.resource = resource
        self._store = store
        self._runtime = runtime
        self._plan = plan(resource.sweep, store.url, reuse=resource.reuse)
        self._driver = SweepDriver(self._plan, runtime, store)
        self._lock = _lock(resource, store, self._plan.layout)
        self._holds_lock = False
        self._refused = RefusedSubmissions(clock)
        self._retired: set[str] = set()
        self._spec_is_written = False

    @property
    def key(self) -> str:
        """Identity of the resource: a sweep of the same name that is created later has another."""
        return f"{self.resource.name}/{self.resource.uid}"

    def is_current(self, resource: ResourceSweep) -> bool:
        """Whether a resource is still the same one in the same generation."""
        return (self.resource.uid, self.resource.generation) == (resource.uid, resource.generation)

    @property
    def state(self) -> SweepState:
        """The state of the sweep before it is observed."""
        return SweepState(
            generation=self.resource.generation,
            spec_hash=self._plan.layout.spec_hash,
            results_uri=f"{self._store.url.rstrip('/')}/{self._plan.layout.root}",
            suspended=self.resource.suspend,
        )

    def enforce_limits(self) -> None:
        """Stop tasks that are past a deadline; done first, as it needs no store.

        Raises:
            TransientError: the cluster is unreachable.
            PermanentError: it refuses.
        """
        self._runtime.enforce_limits(task.name for task in self._plan.tasks)

    def hold_lock(self) -> None:
        """Acquire or renew the sweep's lock, so that no other process on the store does the same work.

        A suspended sweep needs none. Tasks that run while the lock is lost continue: their results count for both.

        Raises:
            BlockedError: another process holds the lock, or the store is unreachable or refuses.
        """
        if not self.resource.suspend:
            _on_store(self._hold_lock)

    def write_spec(self) -> None:
        """Write ``spec.json``, once.

        Raises:
            BlockedError: the store is unreachable or refuses.
        """
        if not self._spec_is_written:
            spec = self.resource.sweep.model_dump_json(indent=2).encode()
            _on_store(lambda: self._store.put(self._plan.layout.spec, spec))
            self._spec_is_written = True

    def observe(self) -> Snapshot:
        """Return a snapshot of the sweep: first its tasks, then their manifests.

        Raises:
            BlockedError: the store is unreachable or refuses.
        """
        tasks = self._driver.observe()
        return self._refused.applied_to(_on_store(lambda: self._driver.read(tasks)))

    def decide(self, snapshot: Snapshot) -> Sequence[Action]:
        """Return the next actions."""
        if snapshot.is_finished:
            return ()
        if self.resource.suspend:
            return [Delete(task) for task in self._plan.tasks if snapshot.observed.is_active(task)]
        return reconcile(self._plan, snapshot.observed)

    def act(self, snapshot: Snapshot, actions: Sequence[Action]) -> None:
        """Carry out actions; a task that the cluster refuses does not prevent others.

        Raises:
            BlockedError: the cluster is unreachable, or refuses something.
        """
        try:
            self._retire(snapshot)
            self._delete([action for action in actions if isinstance(action, Delete)])
            self._submit([action for action in actions if not isinstance(action, Delete)])
        except TransientError as error:
            raise BlockedError(Failure(CLUSTER_AWAY, str(error))) from error
        except PermanentError as error:
            raise BlockedError(Failure(CLUSTER_REFUSED, str(error))) from error
        if failure := self._refused.failure():
            raise BlockedError(failure)

    def report_request(self, snapshot: Snapshot) -> ReportRequest:
        """Return the request for the report of a finished sweep."""
        failed, skipped = snapshot.failures()
        return ReportRequest(sweep=self.resource.sweep, store=self._store.url, failed=failed, skipped=skipped)

    def release(self) -> None:
        """Release the lock: the sweep has ended, is suspended or was deleted."""
        self._holds_lock = False
        try:
            self._lock.release()
        except BenchError as error:
            _log.warning("the lock of sweep %s was not released and will expire: %s", self.resource.name, error)

    def _hold_lock(self) -> None:
        try:
            if self._holds_lock:
                self._lock.renew()
            else:
                self._holds_lock = self._lock.try_acquire()
        except LeaseLostError:
            self._holds_lock = False
        if not self._holds_lock:
            holder = self._lock.holder() or "another process"
            message = f"{holder} is running the same sweep in this store; this one waits until it has ended"
            raise BlockedError(Failure(STORE_LOCKED, message))

    def _retire(self, snapshot: Snapshot) -> None:
        for name in snapshot.observed.done - self._retired:
            task = snapshot.observed.tasks.get(name)
            if task is not None and task.phase is not Phase.ABSENT and not task.phase.is_active:
                self._runtime.retire(name)
                self._retired.add(name)

    def _delete(self, actions: Sequence[Delete]) -> None:
        """Delete in parallel: each deletion waits until the task's pods have ended."""
        if not actions:
            return
        with ThreadPoolExecutor(min(_PARALLEL_DELETIONS, len(actions)), thread_name_prefix="delete") as pool:
            for deletion in [pool.submit(self._driver.act, action) for action in actions]:
                deletion.result()

    def _submit(self, actions: Sequence[Submit | Reuse]) -> None:
        refused: dict[str, str] = {}
        for action in actions:
            try:
                self._driver.act(action)
            except PermanentError as error:
                _log.warning("the submission of %s was refused: %s", action.task.name, error)
                refused[action.task.name] = str(error)
        self._refused.record(refused)


def _on_store(request: Callable[[], _Answer]) -> _Answer:
    """Return the answer to a request to the store.

    Raises:
        BlockedError: the store is unreachable or refuses.
    """
    try:
        return request()
    except BlockedError:
        raise
    except TransientError as error:
        raise BlockedError(Failure(STORE_AWAY, str(error))) from error
    except PermanentError as error:
        raise BlockedError(Failure(NOT_USABLE, str(error))) from error


def _lock(resource: ResourceSweep, store: ObjectStore, layout: SweepLayout) -> SweepLock:
    title = f"RecipeSweep {resource.namespace}/{resource.name}"
    return resource_lease(store, layout, SystemClock(), uid=resource.uid, title=title)
