"""The observed state of a sweep at one moment, and the resulting state of each run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from surogate_bench.contract import LACK_OF_CAPABILITY
from surogate_bench_orchestrator.domain.plan import Evaluation, Plan, Run
from surogate_bench_orchestrator.domain.tasks import ABSENT, Observation, Phase, Task, way_of_serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The observed state that decisions are based on.

    ``done`` must have been read after ``tasks``: a task that is observed as succeeded has already written its manifest.
    """

    done: frozenset[str]
    """Names of the tasks whose manifest is in the store."""
    tasks: Mapping[str, Observation]
    slots: int | None
    """Accelerators, or shares of the CPU, of the runtime, taken or free. None if they are not counted: tasks are then
    queued, and the number of placed tasks is a lower bound."""
    reusable: Mapping[str, str] = field(default_factory=dict)
    """Prefix of a finished stage, of any sweep, whose result is valid for the task; by task name."""

    def of(self, task: Task) -> Observation:
        """Return the runtime's observation of a task."""
        return self.tasks.get(task.name, ABSENT)

    def is_done(self, task: Task) -> bool:
        """Whether the task's manifest exists; a server is never done."""
        return task.name in self.done

    def is_active(self, task: Task) -> bool:
        """Whether the task holds slots of the runtime, or is queued for them."""
        return self.of(task).phase.is_active

    def is_placed(self, task: Task) -> bool:
        """Whether the task holds its slots, rather than waiting for them in the runtime's queue."""
        observation = self.of(task)
        return observation.phase.is_active and not (observation.queued or observation.unplaced)

    def lacks_room(self, task: Task) -> bool:
        """Whether the task was submitted and lacks the resources to be placed."""
        observation = self.of(task)
        return observation.phase.is_active and observation.unplaced

    def is_due(self, task: Task) -> bool:
        """Whether the task is neither done nor known to the runtime.

        A task that the runtime does not know may have run: only its manifest is evidence of a result.
        """
        return not self.is_done(task) and self.of(task).phase is Phase.ABSENT


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed or was skipped."""

    reason: str
    message: str
    way: str = ""
    """Way of serving (:func:`way_of_serving`) of the only evaluation that ended so, with which the message begins;
    empty for the base as published, for a further task, and for what every evaluation needs."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason

    @property
    def is_lack_of_capability(self) -> bool:
        """Whether the hardware cannot run it, rather than an attempt having failed."""
        return self.reason in LACK_OF_CAPABILITY


def failure_of(task: Task, observed: Observed) -> Failure | None:
    """Return why a task failed for good; None while it may still succeed."""
    observation = observed.of(task)
    if observed.is_done(task):
        return None
    if observation.phase is Phase.FAILED:
        return Failure(observation.reason or "Failed", observation.message)
    if observation.phase is Phase.SUCCEEDED:
        return Failure("ResultMissing", f"{task.name} ended without an error, but published no result")
    return None


class RunState(StrEnum):
    """State of a run, or of one of its evaluations."""

    PENDING = "Pending"
    TRAINING = "Training"
    IMPORTING = "Importing"
    TRAINED = "Trained"
    EVALUATING = "Evaluating"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.SKIPPED}


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State of a run or evaluation, and why it did not succeed."""

    state: RunState
    failure: Failure | None = None


def run_states(plan: Plan, observed: Observed) -> dict[str, RunStatus]:
    """Return the state of each run, by name, in the plan's order.

    A run succeeds with the last of its evaluations. It ends when all of them have ended: as failed if one failed, else
    as skipped if one was skipped, with the reason of the first; results of its other evaluations stay valid.
    """
    return {run.name: _combined(evaluation_states(plan, run, observed)) for run in plan.runs}


def evaluation_states(plan: Plan, run: Run, observed: Observed) -> dict[str, RunStatus]:
    """Return the state of each evaluation of a run, by the name of its task."""
    return {each.task.name: _evaluation_state(plan, run, each, observed) for each in run.evaluations}


def is_finished(plan: Plan, observed: Observed) -> bool:
    """Whether every run has ended and nothing runs any more."""
    ended = all(status.state.is_terminal for status in run_states(plan, observed).values())
    return ended and not any(observed.is_active(task) for task in plan.tasks)


def _combined(evaluations: Mapping[str, RunStatus]) -> RunStatus:
    statuses = list(evaluations.values())
    if unfinished := [status for status in statuses if not status.state.is_terminal]:
        return next((each for each in unfinished if each.state is RunState.EVALUATING), unfinished[0])
    for state in (RunState.FAILED, RunState.SKIPPED):
        if found := [status for status in statuses if status.state is state]:
            return found[0]
    return statuses[0]


def _evaluation_state(plan: Plan, run: Run, evaluation: Evaluation, observed: Observed) -> RunStatus:
    """Return the state of one evaluation, from the stages that it needs."""
    if observed.is_done(evaluation.task):
        return RunStatus(RunState.SUCCEEDED)
    if failure := _first_failure((*plan.preliminaries, *([run.train] if run.train else [])), observed):
        return _ended(failure)
    if failure := failure_of(evaluation.task, observed):
        return _ended(_located(failure, evaluation))
    if observed.is_active(evaluation.task):
        return RunStatus(RunState.EVALUATING)
    if run.train is None or observed.is_done(run.train):
        return _waiting_for_server(run, evaluation, observed)
    is_working = observed.is_active(run.train) and not observed.of(run.train).unplaced
    working = RunState.IMPORTING if run.adapter else RunState.TRAINING
    return RunStatus(working if is_working else RunState.PENDING)


def _waiting_for_server(run: Run, evaluation: Evaluation, observed: Observed) -> RunStatus:
    if failure := failure_of(evaluation.server, observed):
        return _ended(_located(Failure(failure.reason, f"the model server failed: {failure.message}"), evaluation))
    return RunStatus(RunState.PENDING if run.train is None else RunState.TRAINED)


def _first_failure(tasks: Sequence[Task], observed: Observed) -> Failure | None:
    return next((failure for task in tasks if (failure := failure_of(task, observed))), None)


def _located(failure: Failure, evaluation: Evaluation) -> Failure:
    """Add how the base was served, or which further task was scored."""
    way = "" if evaluation.further else way_of_serving(evaluation.under, merged=evaluation.merged)
    part = evaluation.further or way
    return Failure(failure.reason, f"{part}: {failure.message}".removesuffix(": "), way) if part else failure


def _ended(failure: Failure) -> RunStatus:
    return RunStatus(RunState.SKIPPED if failure.is_lack_of_capability else RunState.FAILED, failure)
