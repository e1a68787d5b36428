"""Sweeps that run one after another in one store, for tests of what is computed and what is reused."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finished_stages import publish
from stand_ins.clock import FakeClock
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_sweep

from surogate_bench.layout import manifest_key
from surogate_bench.results import ScoredData
from surogate_bench.stages.publication import read_manifest
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest, PrepareRequest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.sweep.runner import SweepRunner
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

RECIPES = ["bf16", "fp8"]


@dataclass
class World:
    """A store, and sweeps that run in it one after another on the in-memory runtime."""

    store: ObjectStore
    scratch: Path
    submitted: list[str] = field(default_factory=list)
    prepared: dict[str, Any] = field(default_factory=dict)
    """What prepare stages find otherwise."""
    own_data: ScoredData | None = None
    """What checks and evaluations find that their tasks score."""

    def run(self, *, reuse: bool = True, **changes: Any) -> Snapshot:
        """Run a sweep to its end; `submitted` lists what was computed for it."""
        sweep = small_sweep(**{"recipes": RECIPES} | changes)
        laid_out = plan(sweep, self.store.url, reuse=reuse)
        self.store.put(laid_out.layout.spec, sweep.model_dump_json().encode())
        runtime = MemoryRuntime(slots=2, ending=lambda _task, _attempt: Ending.OK, publish=self._publish)
        clock = FakeClock(each=runtime.advance)
        last = SweepRunner(
            laid_out, runtime, self.store, clock, heartbeat=lambda: require_end(clock), show=lambda _: None
        ).run()
        assert {status.state for status in last.states.values()} == {RunState.SUCCEEDED}
        shared = {task.name for task in (*laid_out.preliminaries, laid_out.server)}
        self.submitted = [_stage(name) for name in runtime.submitted if name not in shared]
        return last

    def _publish(self, task: Task) -> None:
        found: dict[str, Any] = {}
        if isinstance(task.request, PrepareRequest):
            found = self.prepared
        elif isinstance(task.request, CheckRequest | EvaluateRequest):
            found = {"scored": self.own_data}
        publish(self.store, task, self.scratch, **found)


def change(store: ObjectStore, prefix: str, **changes: Any) -> None:
    """Rewrite a manifest."""
    manifest = read_manifest(store, prefix)
    assert manifest is not None
    store.put(manifest_key(prefix), manifest.model_copy(update=changes).model_dump_json().encode())


def require_end(clock: FakeClock) -> None:
    assert clock.time < 10_000, "no end"


def _stage(task_name: str) -> str:
    return re.sub(r"^(small|other|edited|as-shipped)-", "", task_name.rpartition("-")[0])
