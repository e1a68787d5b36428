"""What the planner observes, without a runtime."""

from collections.abc import Mapping

from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.tasks import Observation, Task


def given(*done: Task, tasks: Mapping[Task, Observation] | None = None, slots: int | None = 1) -> Observed:
    return Observed(
        done=frozenset(task.name for task in done),
        tasks={task.name: observation for task, observation in (tasks or {}).items()},
        slots=slots,
    )
