"""What one look at a RecipeSweep does, from the resource to its status."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from surogate_bench.errors import ConfigError, PermanentError, TransientError
from surogate_bench.task_files import TaskFolders
from surogate_bench_orchestrator.controller.metrics.exposition import Board
from surogate_bench_orchestrator.controller.metrics.figures import figures_of
from surogate_bench_orchestrator.controller.status.document import INVALID, is_final
from surogate_bench_orchestrator.controller.status.writer import StatusWriter
from surogate_bench_orchestrator.controller.sweep.keeper import STORE_AWAY, ClusterRuntime, Reports, SweepKeeper
from surogate_bench_orchestrator.controller.sweep.standing import Standing, Trouble
from surogate_bench_orchestrator.controller.sweep.store_gate import NOT_USABLE, StoreGate
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.resource.model import ResourceSweep, parse_resource

_SOON_S = 1.0
_LEAST_RESYNC_S, _MOST_RESYNC_S = 5.0, 10.0
_RUNS_PER_RESYNC_SECOND = 100


class Resources(Protocol):
    """The RecipeSweeps as last seen."""

    def get(self, name: str) -> dict[str, Any] | None:
        """One of them."""
        ...

    def objects(self) -> list[dict[str, Any]]:
        """All of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the reconciler works with."""

    resources: Resources
    gate: StoreGate
    make_runtime: Callable[[ResourceSweep], ClusterRuntime]
    reports: Reports
    writer: StatusWriter
    board: Board
    clock: Callable[[], float]


class Reconciler:
    """Looks at sweeps by name; several at once, but never twice at the same one."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._with = surroundings
        self._lock = threading.Lock()
        self._keepers: dict[str, SweepKeeper] = {}

    def turn(self, name: str) -> float | None:
        """Look at a sweep and act.

        Returns:
            Seconds until it must be looked at again even if nothing happens; None if only a change is of interest.

        Raises:
            TransientError: something is away; look again, later each time.
            PermanentError: the API refuses to take the status.
        """
        item = self._with.resources.get(name)
        if item is None or item["metadata"].get("deletionTimestamp"):
            self._forget(name)
            return None
        if is_final(self._with.writer.current(item)):
            self._look_back(name, item)
            return None
        try:
            keeper = self._keeper(item)
        except ConfigError as error:
            self._refuse(item, Trouble(INVALID, str(error)))
            return None
        if keeper is None:
            if trouble := self._with.gate.trouble:
                self._refuse(item, trouble)
                return None
            return _SOON_S  # the store is being tried
        return self._keep(item, keeper)

    def _keep(self, item: Mapping[str, Any], keeper: SweepKeeper) -> float | None:
        """Tell how the sweep stands before acting on it: to stop a task may take its grace."""
        standing = self._explained(keeper.see())
        snapshot = standing.snapshot
        if snapshot is not None:
            self._with.board.show(keeper.resource.name, figures_of(snapshot))
        refused = self._tell(item, standing)
        if snapshot is not None and not snapshot.is_finished:
            trouble = keeper.act(snapshot)
            if trouble != standing.trouble:
                standing = replace(standing, trouble=trouble)
                refused = self._tell(item, standing)
        if refused is not None:
            raise refused
        if standing.trouble is not None:
            raise TransientError(f"{standing.trouble.reason}: {standing.trouble.message}")
        if standing.finished:
            self._drop(keeper.resource.name)
            return None
        if snapshot is None or snapshot.is_finished:
            return _SOON_S  # the report is being made
        return min(_MOST_RESYNC_S, max(_LEAST_RESYNC_S, len(snapshot.plan.runs) / _RUNS_PER_RESYNC_SECOND))

    def _tell(self, item: Mapping[str, Any], standing: Standing) -> PermanentError | None:
        """Write the status; where the API refuses it, the sweep goes on all the same."""
        try:
            self._with.writer.write(item, standing)
        except PermanentError as error:
            return error
        return None

    def _look_back(self, name: str, item: dict[str, Any]) -> None:
        """Read a finished sweep's results once, for the metrics."""
        self._with.writer.acknowledge(item)
        if self._with.board.knows(name) or self._with.gate.store is None:
            return
        try:
            keeper = self._keeper(item)
        except ConfigError:
            return  # it was valid once; a newer controller understands it no more, and its status says all
        if keeper is not None:
            counted = Counter(row["state"] for row in self._with.writer.current(item).get("runs") or ())
            states = {state.value: counted[state.value] for state in RunState}
            self._with.board.show(name, replace(figures_of(keeper.look()), states=states))
        self._drop(name)

    def _keeper(self, item: dict[str, Any]) -> SweepKeeper | None:
        """The keeper of a sweep, new if the resource has changed; None while the store cannot be used."""
        metadata = item["metadata"]
        with self._lock:
            keeper = self._keepers.get(metadata["name"])
        if keeper is not None:
            known = keeper.resource
            if (known.uid, known.generation) == (metadata["uid"], metadata["generation"]):
                return keeper
        resource = parse_resource(item)
        _check(resource)
        store = self._with.gate.store
        if store is None:
            return None
        if keeper is not None and (resource.suspend or keeper.resource.uid != resource.uid):
            keeper.release()
        made = SweepKeeper(resource, store, self._with.make_runtime(resource), self._with.reports, self._with.clock)
        with self._lock:
            self._keepers[resource.name] = made
        return made

    def _explained(self, standing: Standing) -> Standing:
        """Say of a store that is away why its pod is not ready, if it is the release's own."""
        trouble = standing.trouble
        if trouble is None or trouble.reason not in {STORE_AWAY, NOT_USABLE}:
            return standing
        return replace(standing, trouble=replace(trouble, message=self._with.gate.explained(trouble.message)))

    def _refuse(self, item: Mapping[str, Any], why: Trouble) -> None:
        self._with.writer.write(item, Standing(generation=item["metadata"]["generation"], refusal=why))

    def _forget(self, name: str) -> None:
        self._drop(name)
        self._with.board.remove(name)
        self._with.writer.forget({item["metadata"]["uid"] for item in self._with.resources.objects()})

    def _drop(self, name: str) -> None:
        with self._lock:
            keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.release()


def _check(resource: ResourceSweep) -> None:
    """Refuse what is valid in itself and yet cannot work here.

    Raises:
        ConfigError: names the field and the remedy.
    """
    sweep = resource.sweep
    if sweep.evaluation.tasks_dir is None:  # else the folder is in the pods
        try:
            TaskFolders.of(None).require(sweep.evaluation.task)
        except ConfigError as error:
            raise ConfigError(
                "there is no such task in the images",
                field="spec.evaluation.task",
                value=sweep.evaluation.task,
                remedy=error.remedy,
            ) from error
