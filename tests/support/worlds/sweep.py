"""A store, and small sweeps that run in it on the in-memory runtime."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finished_stages import publish
from stand_ins.clock import FakeClock
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_sweep

from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.sweep.runner import SweepRunner
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


@dataclass
class SweepWorld:
    """A store, and the settings that all sweeps have unless changed."""

    store: ObjectStore
    scratch: Path
    settings: dict[str, Any]
    submitted: list[Task] = field(default_factory=list)
    """Tasks that the last sweep computed."""

    def run(self, **changes: Any) -> Snapshot:
        """Run a sweep to its end."""
        sweep = small_sweep(**self.settings | changes)
        laid_out = plan(sweep, self.store.url)
        self.store.put(laid_out.layout.spec, sweep.model_dump_json().encode())
        runtime = MemoryRuntime(slots=1, ending=lambda _task, _attempt: Ending.OK, publish=self._publish)
        clock = FakeClock(each=runtime.advance)
        last = SweepRunner(laid_out, runtime, self.store, clock, heartbeat=lambda: None, show=lambda _: None).run()
        self.submitted = [task for task in laid_out.tasks if task.name in runtime.submitted]
        return last

    def _publish(self, task: Task) -> None:
        publish(self.store, task, self.scratch)
