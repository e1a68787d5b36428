"""A controller in memory: a namespace with its API server, a store, and time that a test advances."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from finished_stages import manifest_of
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_document

from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import manifest_key
from surogate_bench.store.object_store import open_store
from surogate_bench_orchestrator.controller.metrics.exposition import ResultsCollector
from surogate_bench_orchestrator.controller.reports.maker import ReportState, ReportStatus
from surogate_bench_orchestrator.controller.reports.process import ReportRequest
from surogate_bench_orchestrator.controller.status.writer import StatusWriter
from surogate_bench_orchestrator.controller.sweep.reconciler import Dependencies, SweepReconciler
from surogate_bench_orchestrator.controller.sweep.store_connection import StoreConnection
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.resource.status import ConditionType, StatusRow, SweepStatus
from surogate_bench_orchestrator.runtimes.kubernetes.settings import StoreSettings


def small_spec(**changes: Any) -> dict[str, Any]:
    """Make the ``spec`` of a small RecipeSweep with two recipes."""
    document = small_document(**({"recipes": ["bf16", "fp8"]} | changes))
    return {name: value for name, value in document.items() if name != "name"}


class Killed(BaseException):
    """The controller's process was killed."""


class Runtime(MemoryRuntime):
    """The in-memory runtime, which removes retired tasks at once; every write goes through ``write``."""

    def __init__(self, world: "World", slots: int) -> None:
        super().__init__(slots=slots, ending=world.ending, publish=world.publish)
        self._world = world
        self.retired: list[str] = []

    def submit(self, task: Task) -> None:
        if message := self._world.refused.get(task.name.split("-", 1)[1].rsplit("-", 1)[0]):
            raise PermanentError(message)
        self._world.write(lambda: MemoryRuntime.submit(self, task))

    def delete(self, name: str) -> None:
        self._world.write(lambda: MemoryRuntime.delete(self, name))

    def enforce_limits(self, names: Iterable[str]) -> None:
        del names

    def retire(self, name: str) -> None:
        def remove() -> None:
            self.retired.append(name)
            MemoryRuntime.delete(self, name)

        self._world.write(remove)


@dataclass
class World:
    """A namespace; the controller is replaced when it is killed."""

    folder: Path
    slots: int = 2
    bad: dict[str, Ending] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    store_is_not_ready: str = ""
    time: float = 0.0
    writes: int = 0
    kill_at: int = 0
    kill_after_effect: bool = False
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: list[SweepStatus] = field(default_factory=list)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    reports: list[ReportRequest] = field(default_factory=list)
    report_states: list[ReportStatus] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    submitted_after_done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = open_store(str(self.folder))
        self.runtime = Runtime(self, self.slots)
        self.results = ResultsCollector()
        self._report = ReportStatus()
        self.restart()

    # What the controller calls: the cached resources, the API server, and the reports.
    def get(self, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.items.get(name))

    def objects(self) -> list[dict[str, Any]]:
        return [copy.deepcopy(item) for item in self.items.values()]

    def apply(self, path: str, body: dict[str, Any], *, manager: str, force: bool = True) -> dict[str, Any]:
        assert manager == "surogate-bench-controller"
        assert force
        name = body["metadata"]["name"]
        assert path == f"/apis/bench.surogate.ai/v1alpha1/namespaces/lab/recipesweeps/{name}/status"

        def effect() -> None:
            assert body["metadata"]["uid"] == self.items[name]["metadata"]["uid"]
            self.items[name]["status"] = copy.deepcopy(body["status"])
            self.statuses.append(self.status(name))

        self.write(effect)
        return body

    def create(self, path: str, body: dict[str, Any]) -> bool:
        assert path == "/api/v1/namespaces/lab/events"
        name = body["metadata"]["name"]
        if name in self.events:
            return False
        self.write(lambda: self.events.update({name: body}))
        return True

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        name = path.rpartition("/")[2]
        self.write(lambda: self.events[name].update(body))
        return self.events[name]

    def make(self, key: str, request: ReportRequest) -> None:
        del key
        self._report = self.report_states.pop(0) if self.report_states else ReportStatus(ReportState.DONE)
        if self._report.state is ReportState.DONE:
            self.write(lambda: self.reports.append(request))

    def report_status(self, key: str) -> ReportStatus:
        del key
        return self._report

    def forget(self, key: str) -> None:
        del key

    def now(self) -> float:
        return self.time

    # What makes the world continue.
    def write(self, effect: Callable[[], None]) -> None:
        self.writes += 1
        killed = self.writes == self.kill_at
        if not killed or self.kill_after_effect:
            effect()
        if killed:
            raise Killed

    def ending(self, task: Task, attempt: int) -> Ending:
        del attempt
        return next((how for part, how in self.bad.items() if part in task.name), Ending.OK)

    def publish(self, task: Task) -> None:
        assert task.output is not None
        manifest = manifest_of(task.request)
        assert self.store.create(manifest_key(task.output), manifest.model_dump_json().encode()), "done twice"
        self.completions.append(task.name)

    def restart(self, *, connection: StoreConnection | None = None) -> None:
        """Replace the controller by a new one, which remembers nothing."""
        if connection is None:
            connection = StoreConnection(StoreSettings(url=str(self.folder)), lambda: self.store_is_not_ready)
            connection.check()
        started = datetime(2026, 1, 1, tzinfo=UTC)
        writer = StatusWriter(self, clock=self.now, wall=lambda: started + timedelta(seconds=self.time))
        self.reconciler = SweepReconciler(
            Dependencies(
                resources=self,
                connection=connection,
                make_runtime=lambda _: self.runtime,
                reports=Reports(self),
                writer=writer,
                results=self.results,
                clock=self.now,
            )
        )

    def add(self, name: str = "small", **spec: Any) -> None:
        metadata = {"name": name, "namespace": "lab", "uid": f"uid-of-{name}", "generation": 1}
        self.items[name] = {"metadata": metadata, "spec": small_spec() | spec}

    def set(self, name: str = "small", **spec: Any) -> None:
        self.items[name]["spec"] |= spec
        self.items[name]["metadata"]["generation"] += 1

    def status(self, name: str = "small") -> SweepStatus:
        return SweepStatus.of(self.items[name])

    def reason(self, kind: ConditionType = ConditionType.COMPLETE) -> tuple[str, str]:
        """Return the reason and message of a condition of the sweep."""
        condition = self.status().condition(kind)
        assert condition is not None
        return condition.reason, condition.message

    def row(self, name: str) -> StatusRow:
        return next(row for row in self.status().rows if row.name == name)

    def reconcile(self, name: str = "small") -> float | None:
        """Reconcile once, after which tasks advance; errors are raised."""
        done = len(self.completions)
        before = list(self.runtime.submitted)
        try:
            return self.reconciler.reconcile(name)
        finally:
            new = self.runtime.submitted[len(before) :]
            self.submitted_after_done += [task for task in new if task in self.completions[:done]]
            self.time += 5
            self.runtime.advance()

    def settle(self, name: str = "small", *, most: int = 300) -> None:
        """Reconcile until nothing is left to do; a killed controller is started again."""
        for _ in range(most):
            try:
                if self.reconcile(name) is None:
                    return
            except Killed:
                self.restart()
            except TransientError:
                continue
        raise AssertionError(f"no end: {self.status(name)}")

    def reasons(self) -> list[str]:
        """Return the reasons of all Events."""
        return [event["reason"] for event in self.events.values()]

    def states(self, name: str = "small") -> dict[str, str]:
        return {row.name: row.state for row in self.status(name).runs}


class Reports:
    """The world's reports, as the reconciler calls them."""

    def __init__(self, world: World) -> None:
        self.make, self.status, self.forget = world.make, world.report_status, world.forget
