"""What was seen of a sweep at one moment, and what that means for each run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from surogate_bench.contract import LACK_OF_CAPABILITY
from surogate_bench_orchestrator.domain.plan import Plan, Run
from surogate_bench_orchestrator.domain.tasks import ABSENT, Observation, Phase, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Facts to decide on.

    ``done`` must have been read after ``tasks``: a task that is seen to have succeeded has written its manifest before.
    """

    done: frozenset[str]
    """Names of the tasks whose manifest is in the store."""
    tasks: Mapping[str, Observation]
    slots: int | None
    """Accelerators, or shares of the CPU, of the runtime: taken and free ones together. None where they are not
    counted: tasks are queued, and how many of them are placed shows how many there are."""
    reusable: Mapping[str, str] = field(default_factory=dict)
    """By task name: prefix of a finished stage, of this sweep's name or another's, whose result is this task's too."""

    def of(self, task: Task) -> Observation:
        """Tell what the runtime says of a task."""
        return self.tasks.get(task.name, ABSENT)

    def is_done(self, task: Task) -> bool:
        """Whether the task's manifest exists; a server is never done."""
        return task.name in self.done

    def is_active(self, task: Task) -> bool:
        """Whether the task holds slots of the runtime, or is queued for them."""
        return self.of(task).phase.is_active

    def is_placed(self, task: Task) -> bool:
        """Whether the task holds its slots, rather than waiting for them in the runtime's queue."""
        seen = self.of(task)
        return seen.phase.is_active and not (seen.queued or seen.unplaced)

    def is_due(self, task: Task) -> bool:
        """Whether the task is neither done nor known to the runtime.

        That the runtime does not know it says nothing about whether it ran before: only a manifest does.
        """
        return not self.is_done(task) and self.of(task).phase is Phase.ABSENT


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended badly."""

    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason

    @property
    def is_lack_of_capability(self) -> bool:
        """Whether nothing here can run it, rather than something having gone wrong."""
        return self.reason in LACK_OF_CAPABILITY


def failure_of(task: Task, observed: Observed) -> Failure | None:
    """Say why a task failed for good; None while it may still get done."""
    seen = observed.of(task)
    if observed.is_done(task):
        return None
    if seen.phase is Phase.FAILED:
        return Failure(seen.reason or "Failed", seen.message)
    if seen.phase is Phase.SUCCEEDED:
        return Failure("ResultMissing", f"{task.name} ended without error but left no result")
    return None


class RunState(StrEnum):
    """Where a run is."""

    PENDING = "Pending"
    TRAINING = "Training"
    TRAINED = "Trained"
    EVALUATING = "Evaluating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED}


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State of a run, and why, where it did not succeed."""

    state: RunState
    failure: Failure | None = None


def run_states(plan: Plan, observed: Observed) -> dict[str, RunStatus]:
    """Say where each run is, by name, in the plan's order."""
    return {run.name: _run_state(plan, run, observed) for run in plan.runs}


def is_finished(plan: Plan, observed: Observed) -> bool:
    """Whether every run has ended and nothing runs any more."""
    ended = all(status.state.is_terminal for status in run_states(plan, observed).values())
    return ended and not any(observed.is_active(task) for task in plan.tasks)


def _run_state(plan: Plan, run: Run, observed: Observed) -> RunStatus:
    if observed.is_done(run.evaluate):
        return RunStatus(RunState.SUCCEEDED)
    own = (run.evaluate,) if run.train is None else (run.train, run.evaluate)
    for task in (*plan.preliminaries, *own):
        if failure := failure_of(task, observed):
            return _ended(failure)
    if observed.is_active(run.evaluate):
        return RunStatus(RunState.EVALUATING)
    if run.train is None or observed.is_done(run.train):
        if failure := failure_of(plan.server, observed):
            return _ended(Failure(failure.reason, f"the model server failed: {failure.message}"))
        return RunStatus(RunState.PENDING if run.train is None else RunState.TRAINED)
    is_training = observed.is_active(run.train) and not observed.of(run.train).unplaced
    return RunStatus(RunState.TRAINING if is_training else RunState.PENDING)


def _ended(failure: Failure) -> RunStatus:
    return RunStatus(RunState.SKIPPED if failure.is_lack_of_capability else RunState.FAILED, failure)
