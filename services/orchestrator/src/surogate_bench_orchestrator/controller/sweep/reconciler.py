"""Reconciles RecipeSweeps: observe, decide, act, and write the status once, at the end."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from surogate_bench.errors import TransientError
from surogate_bench_orchestrator.controller.metrics.exposition import ResultsCollector
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.controller.reports.maker import ReportState, ReportStatus
from surogate_bench_orchestrator.controller.reports.process import ReportRequest
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.controller.status.writer import StatusWriter
from surogate_bench_orchestrator.controller.sweep.active_sweep import (
    STORE_AWAY,
    ActiveSweep,
    BlockedError,
    ClusterRuntime,
)
from surogate_bench_orchestrator.controller.sweep.admission import Admitted, Rejected, review
from surogate_bench_orchestrator.controller.sweep.store_connection import NOT_USABLE, StoreConnection
from surogate_bench_orchestrator.domain.observed import Failure, RunState
from surogate_bench_orchestrator.resource.model import ResourceSweep

_SOON_S = 1.0
_LEAST_RESYNC_S, _MOST_RESYNC_S = 5.0, 10.0
_RUNS_PER_RESYNC_SECOND = 100


class Resources(Protocol):
    """The cached RecipeSweeps."""

    def get(self, name: str) -> dict[str, Any] | None:
        """Return one of them; None if it does not exist."""
        ...

    def objects(self) -> list[dict[str, Any]]:
        """Return all of them."""
        ...


class Reports(Protocol):
    """Makes reports, for example a :class:`surogate_bench_orchestrator.controller.reports.maker.ReportMaker`."""

    def make(self, key: str, request: ReportRequest) -> None:
        """Start a report, unless it is being made or has ended; called again until it has ended."""
        ...

    def status(self, key: str) -> ReportStatus:
        """Return the status of a report."""
        ...

    def forget(self, key: str) -> None:
        """Stop making a report, and forget its status."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """Dependencies of the reconciler."""

    resources: Resources
    connection: StoreConnection
    make_runtime: Callable[[ResourceSweep], ClusterRuntime]
    reports: Reports
    writer: StatusWriter
    results: ResultsCollector
    clock: Callable[[], float]


class SweepReconciler:
    """Reconciles sweeps by name; several at the same time, but never one of them twice at the same time."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._resources = dependencies.resources
        self._connection = dependencies.connection
        self._reports = dependencies.reports
        self._status = dependencies.writer
        self._results = dependencies.results
        self._dependencies = dependencies
        self._lock = threading.Lock()
        self._active: dict[str, ActiveSweep] = {}

    def reconcile(self, name: str) -> float | None:
        """Bring a sweep one step closer to its end.

        Returns:
            Seconds until the next reconcile without a change; None if only a change requires one.

        Raises:
            TransientError: the sweep is blocked, or the API is unreachable; to be retried with a growing delay.
            PermanentError: the API refuses the status.
        """
        item = self._resources.get(name)
        if item is None or "deletionTimestamp" in item["metadata"]:
            self._forget(name)
            return None
        if self._status.current(item).is_final:
            self._reconcile_finished(item)
            return None
        admission = review(item, self._connection)
        if admission is None:
            return _SOON_S  # the store is being checked
        if isinstance(admission, Rejected):
            self._status.write(item, _rejected(item, admission))
            return None
        return self._reconcile_active(item, self._activate(admission))

    def _reconcile_active(self, item: Mapping[str, Any], sweep: ActiveSweep) -> float | None:
        """Take one step and write the status, whether or not the step succeeded."""
        state = self._step(sweep)
        if state.snapshot is not None:
            self._results.update(sweep.resource.name, figures_of(state.snapshot))
        self._status.write(item, state)
        if state.failure is not None:
            raise TransientError(str(state.failure))
        if state.finished:
            self._deactivate(sweep.resource.name)
        return _resync_s(state)

    def _step(self, sweep: ActiveSweep) -> SweepState:
        """Observe, decide, act."""
        state = sweep.state
        sweep.enforce_limits()
        try:
            sweep.hold_lock()
            sweep.write_spec()
            snapshot = sweep.observe()
            state = replace(state, snapshot=snapshot)
            actions = sweep.decide(snapshot)
            sweep.act(snapshot, actions)
        except BlockedError as error:
            return replace(state, failure=self._explained(error.failure))
        if snapshot.is_finished:
            self._reports.make(sweep.key, sweep.report_request(snapshot))
            return _with_report(state, self._reports.status(sweep.key))
        return state

    def _reconcile_finished(self, item: Mapping[str, Any]) -> None:
        """Acknowledge a new generation, and read the results for the metrics, once."""
        self._status.acknowledge(item)
        name = item["metadata"]["name"]
        if self._results.has(name):
            return
        admission = review(item, self._connection)
        if isinstance(admission, Admitted):  # otherwise the existing status has everything that this version can show
            counted = Counter(row.state for row in self._status.current(item).runs)
            states = {state.value: counted[state.value] for state in RunState}
            self._results.update(name, replace(figures_of(self._new(admission).observe()), states=states))

    def _activate(self, admission: Admitted) -> ActiveSweep:
        """Return the sweep as known from earlier reconciles, or a new one if the resource has changed."""
        resource = admission.resource
        with self._lock:
            known = self._active.get(resource.name)
        if known is not None and known.is_current(resource):
            return known
        if known is not None and (resource.suspend or known.resource.uid != resource.uid):
            self._deactivate(resource.name)
        sweep = self._new(admission)
        with self._lock:
            self._active[resource.name] = sweep
        return sweep

    def _new(self, admission: Admitted) -> ActiveSweep:
        runtime = self._dependencies.make_runtime(admission.resource)
        return ActiveSweep(admission.resource, admission.store, runtime, self._dependencies.clock)

    def _explained(self, failure: Failure) -> Failure:
        """Replace the message of a failed request by the reason why the release's own store is not ready."""
        if failure.reason not in {STORE_AWAY, NOT_USABLE}:
            return failure
        return replace(failure, message=self._connection.explain(failure.message))

    def _forget(self, name: str) -> None:
        self._deactivate(name)
        self._results.remove(name)
        self._status.forget({item["metadata"]["uid"] for item in self._resources.objects()})

    def _deactivate(self, name: str) -> None:
        with self._lock:
            sweep = self._active.pop(name, None)
        if sweep is not None:
            sweep.release()
            self._reports.forget(sweep.key)


def _rejected(item: Mapping[str, Any], admission: Rejected) -> SweepState:
    return SweepState(generation=item["metadata"]["generation"], rejection=admission.failure)


def _with_report(state: SweepState, report: ReportStatus) -> SweepState:
    """Return the state as finished, once the report has ended."""
    if report.state is ReportState.WORKING:
        return state
    return replace(state, finished=True, report_failure=report.message)


def _resync_s(state: SweepState) -> float | None:
    if state.finished:
        return None
    if state.snapshot is None or state.snapshot.is_finished:
        return _SOON_S  # the report is being made
    return min(_MOST_RESYNC_S, max(_LEAST_RESYNC_S, len(state.snapshot.plan.runs) / _RUNS_PER_RESYNC_SECOND))
