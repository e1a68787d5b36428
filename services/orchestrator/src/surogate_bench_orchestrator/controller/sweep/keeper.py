"""One admitted sweep: look, decide, act, once a turn; everything it needs to know lies in store and cluster."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from surogate_bench.errors import BenchError, PermanentError, TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.controller.reports.maker import ReportState
from surogate_bench_orchestrator.controller.reports.process import ReportRequest
from surogate_bench_orchestrator.controller.sweep.refusals import Refusals
from surogate_bench_orchestrator.controller.sweep.standing import Standing, Trouble
from surogate_bench_orchestrator.controller.sweep.store_gate import NOT_USABLE
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.reconcile import Action, Delete, Reuse, Submit, reconcile
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.ports import Runtime
from surogate_bench_orchestrator.resource.model import ResourceSweep
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.locks import LeaseLostError, SweepLock, resource_lease
from surogate_bench_orchestrator.sweep.runner import Snapshot, SweepDriver

_log = logging.getLogger(__name__)

STORE_AWAY = "StoreAway"
STORE_LOCKED = "StoreLocked"
CLUSTER_AWAY = "ClusterAway"
_DELETIONS_AT_ONCE = 8


class ClusterRuntime(Runtime, Protocol):
    """A runtime whose finished tasks remain to be seen until they are retired."""

    def retire(self, name: str) -> None:
        """Let a finished task go some time later: its result is in the store. Nothing happens if it is not known."""
        ...


class Reports(Protocol):
    """Makes reports; see :class:`surogate_bench_orchestrator.controller.reports.maker.ReportMaker`."""

    def advance(self, key: str, request: ReportRequest) -> tuple[ReportState, str]:
        """Begin a report, or look how far it is."""
        ...


class SweepKeeper:
    """Keeps a sweep going. Used by one thread at a time.

    Args:
        resource: The sweep.
        store: Where its results go.
        runtime: What runs its tasks.
        reports: What makes its report.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        resource: ResourceSweep,
        store: ObjectStore,
        runtime: ClusterRuntime,
        reports: Reports,
        clock: Callable[[], float],
    ) -> None:
        self.resource = resource
        self._store = store
        self._runtime = runtime
        self._reports = reports
        self._plan = plan(resource.sweep, store.url, reuse=resource.reuse)
        self._driver = SweepDriver(self._plan, runtime, store)
        self._lock = _lock(resource, store, self._plan.layout)
        self._holds_lock = False
        self._refusals = Refusals(clock)
        self._retired: set[str] = set()
        self._spec_is_written = False
        self._trouble: Trouble | None = None
        """What was in the way of the last actions."""

    def look(self) -> Snapshot:
        """See how the sweep stands, and do nothing.

        Raises:
            TransientError: store or cluster is away.
            PermanentError: one of them refuses.
        """
        return self._driver.snapshot()

    def see(self) -> Standing:
        """See how the sweep stands, and make its report once it has ended.

        Raises:
            TransientError: the cluster is away.
            PermanentError: it refuses.
        """
        standing = self._standing()
        seen = self._driver.observe()
        try:
            if locked := self._locked():
                return replace(standing, trouble=locked)
            self._write_spec()
            snapshot = self._refusals.judged(self._driver.read(seen))
        except TransientError as error:
            return replace(standing, trouble=Trouble(STORE_AWAY, str(error)))
        except PermanentError as error:
            return replace(standing, trouble=Trouble(NOT_USABLE, str(error)))
        standing = replace(standing, snapshot=snapshot)
        if snapshot.is_finished:
            return self._finish(standing, snapshot)
        return replace(standing, trouble=self._trouble)

    def act(self, snapshot: Snapshot) -> Trouble | None:
        """Decide and act on what was seen: what the cluster refuses for one task keeps no other from running.

        Returns:
            What was in the way; another turn is needed soon then.

        Raises:
            PermanentError: the cluster refuses to stop a task.
        """
        actions = self._decide(snapshot)
        refused: dict[str, str] = {}
        try:
            self._retire(snapshot)
            self._delete([action for action in actions if isinstance(action, Delete)])
            for action in actions:
                if not isinstance(action, Delete) and (why := self._submit(action)):
                    refused[action.task.name] = why
        except TransientError as error:
            self._trouble = Trouble(CLUSTER_AWAY, str(error))
        else:
            self._refusals.update(refused)
            self._trouble = self._refusals.trouble()
        return self._trouble

    def release(self) -> None:
        """Let others on the same store have the sweep: it has ended here, is suspended or gone."""
        self._holds_lock = False
        try:
            self._lock.release()
        except BenchError as error:
            _log.warning("the lock of sweep %s was not given back and will expire: %s", self.resource.name, error)

    def _locked(self) -> Trouble | None:
        """Keep others on the same store from doing the same work; say who does it, if others do.

        A suspended sweep does none. Tasks that run while the lock is lost go on: what they finish counts for both.
        """
        if self.resource.suspend:
            return None
        try:
            if self._holds_lock:
                self._lock.renew()
            else:
                self._holds_lock = self._lock.try_acquire()
        except LeaseLostError:
            self._holds_lock = False
        if self._holds_lock:
            return None
        holder = self._lock.holder() or "another process"
        return Trouble(STORE_LOCKED, f"in this store {holder} works on the same sweep; this one goes on after it")

    def _standing(self) -> Standing:
        return Standing(
            generation=self.resource.generation,
            spec_hash=self._plan.layout.spec_hash,
            results_uri=f"{self._store.url.rstrip('/')}/{self._plan.layout.root}",
            suspended=self.resource.suspend,
        )

    def _write_spec(self) -> None:
        if not self._spec_is_written:
            self._store.put(self._plan.layout.spec, self.resource.sweep.model_dump_json(indent=2).encode())
            self._spec_is_written = True

    def _decide(self, snapshot: Snapshot) -> Sequence[Action]:
        if self.resource.suspend:
            return [Delete(task) for task in self._plan.tasks if snapshot.observed.is_active(task)]
        return reconcile(self._plan, snapshot.observed)

    def _delete(self, actions: Sequence[Delete]) -> None:
        """Stop tasks side by side, as each may take its grace to end."""
        if not actions:
            return
        with ThreadPoolExecutor(min(_DELETIONS_AT_ONCE, len(actions)), thread_name_prefix="delete") as pool:
            for done in [pool.submit(self._driver.act, action) for action in actions]:
                done.result()

    def _submit(self, action: Submit | Reuse) -> str:
        """Submit or reuse; say why it was refused, if it was."""
        try:
            self._driver.act(action)
        except PermanentError as error:
            _log.warning("%s was refused: %s", action.task.name, error)
            return str(error)
        return ""

    def _retire(self, snapshot: Snapshot) -> None:
        for name in snapshot.observed.done - self._retired:
            seen = snapshot.observed.tasks.get(name)
            if seen is not None and seen.phase is not Phase.ABSENT and not seen.phase.is_active:
                self._runtime.retire(name)
                self._retired.add(name)

    def _finish(self, standing: Standing, snapshot: Snapshot) -> Standing:
        self._retire(snapshot)
        failed, skipped = snapshot.failure_messages()
        request = ReportRequest(sweep=self.resource.sweep, store=self._store.url, failed=failed, skipped=skipped)
        state, message = self._reports.advance(f"{self.resource.name}/{self.resource.uid}", request)
        if state is ReportState.WORKING:
            return standing
        remark = f"The report could not be made: {message}" if state is ReportState.GIVEN_UP else ""
        return replace(standing, finished=True, remark=remark)


def _lock(resource: ResourceSweep, store: ObjectStore, layout: SweepLayout) -> SweepLock:
    title = f"RecipeSweep {resource.namespace}/{resource.name}"
    return resource_lease(store, layout, SystemClock(), uid=resource.uid, title=title)
