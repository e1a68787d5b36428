"""Builds the status of a RecipeSweep from its state and the previous status; pure."""

from collections.abc import Iterable

from surogate_bench_orchestrator.controller.status.highest import highest_so_far
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.domain.observed import Failure, RunState
from surogate_bench_orchestrator.domain.plan import Run
from surogate_bench_orchestrator.resource.status import (
    Condition,
    ConditionType,
    StatusRow,
    SweepPhase,
    SweepStatus,
)
from surogate_bench_orchestrator.sweep.rows import ProgressRow, run_rows, service_rows
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

INVALID = "Invalid"
"""Reason of condition Admitted for a sweep that cannot run unless it is changed."""
_IN_PROGRESS, _NOT_ADMITTED, _NONE_FAILED, _RUNS_FAILED = "InProgress", "NotAdmitted", "NoneFailed", "RunsFailed"
NOT_BLOCKED = frozenset({_IN_PROGRESS, _NOT_ADMITTED, _NONE_FAILED, _RUNS_FAILED, ""})
"""Reasons of condition Complete for a sweep that is not blocked."""

_MESSAGES_BYTES = 150_000
"""Maximum total length of the messages of all rows: 1,000 rows with every field, and the API server's record of who
owns each field, stay below the 1.5 MiB that etcd accepts."""
_LONGEST, _SHORTEST = 1000, 60
"""Maximum length of a row's message."""
_CONDITION_MESSAGE = 4000
_PROGRESS_FIELDS = {
    "detail": "", "step": 0, "total": 0, "loss": None, "tokens_per_second": None, "elapsed_seconds": None,
}  # fmt: skip
"""Fields of a row that change all the time, and their empty values."""
_SUSPENSION = {
    True: Failure("Requested", "spec.suspend is true: tasks are stopped, and continue once it is false"),
    False: Failure("NotRequested", ""),
}
_Reason = Failure
"""Reason and message of a condition."""


def build_status(state: SweepState, previous: SweepStatus, now: str) -> SweepStatus:
    """Return the status of a sweep.

    Args:
        state: Current state; unknown fields are kept from the previous status.
        previous: The previous status; empty for a new sweep.
        now: RFC 3339.
    """
    is_invalid = state.rejection is not None and state.rejection.reason == INVALID
    status = SweepStatus() if is_invalid else previous
    changes: dict[str, object] = {"observed_generation": state.generation}
    if state.results_uri:
        changes |= {"spec_hash": state.spec_hash, "results_uri": state.results_uri}
    if state.snapshot is not None:
        changes |= _progress(state, state.snapshot)
        if status.start_time is None and _has_started(state.snapshot):
            changes["start_time"] = now
    if state.finished and status.completion_time is None:
        changes["completion_time"] = now
    status = status.model_copy(update=changes)
    return status.model_copy(
        update={"phase": _phase(state, status), "conditions": _conditions(state, status, previous, now)}
    )


def status_row(row: ProgressRow, limit: int) -> StatusRow:
    """Return a row as it is written to the status, numbers rounded and the message cut to ``limit`` characters."""
    return StatusRow(
        name=row.name,
        state=row.state,
        detail=row.detail,
        attempt=row.attempt,
        step=row.step,
        total=row.total,
        loss=_rounded(row.loss, 4),
        tokens_per_second=_rounded(row.tokens_per_second, 1),
        elapsed_seconds=_rounded(row.elapsed_s, 1),
        accuracy=_rounded(row.accuracy, 6),
        stderr=_rounded(row.stderr, 6),
        served_accuracies={under: round(value, 6) for under, value in row.served_accuracies.items()},
        merged_accuracies={under: round(value, 6) for under, value in row.merged_accuracies.items()},
        task_accuracies={task: round(value, 6) for task, value in row.task_accuracies.items()},
        reason=row.failure.reason if row.failure else "",
        message=shortened(row.failure.message, limit) if row.failure else "",
    )


def differs_in_progress_only(one: SweepStatus, other: SweepStatus) -> bool:
    """Whether two statuses are equal except for the progress of running tasks."""
    return _without_progress(one) == _without_progress(other)


def shortened(text: str, limit: int) -> str:
    """Return the beginning of a text, with an ellipsis where it was cut off."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _without_progress(status: SweepStatus) -> SweepStatus:
    rows = {
        name: tuple(row.model_copy(update=_PROGRESS_FIELDS) for row in getattr(status, name))
        for name in ("runs", "services")
    }
    return status.model_copy(update=rows)


def _progress(state: SweepState, snapshot: Snapshot) -> dict[str, object]:
    states = [status.state for status in snapshot.states.values()]
    runs, services = run_rows(snapshot), service_rows(snapshot)
    limit = _message_limit([*runs, *services])
    return {
        "progress": f"{sum(each.is_terminal for each in states)}/{len(states)}",
        "failed": states.count(RunState.FAILED),
        "runs": tuple(
            status_row(row, limit).model_copy(update=_identity(run, f"{state.results_uri}/runs/{run.name}"))
            for run, row in zip(snapshot.plan.runs, runs, strict=True)
        ),
        "services": tuple(status_row(row, limit) for row in services),
        "best": highest_so_far(snapshot.plan, runs),
    }


def _identity(run: Run, uri: str) -> dict[str, object]:
    return {"recipe": run.row, "seed": run.seed, "uri": uri}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _message_limit(rows: Iterable[ProgressRow]) -> int:
    with_message = sum(row.failure is not None for row in rows)
    return max(_SHORTEST, min(_LONGEST, _MESSAGES_BYTES // max(1, with_message)))


def _has_started(snapshot: Snapshot) -> bool:
    observed = snapshot.observed
    return bool(observed.done) or any(observed.is_active(task) for task in snapshot.plan.tasks)


def _phase(state: SweepState, status: SweepStatus) -> SweepPhase:
    if state.rejection is not None and state.rejection.reason == INVALID:
        return SweepPhase.REJECTED
    if state.finished:
        return SweepPhase.FAILED if status.failed else SweepPhase.COMPLETE
    if state.suspended:
        return SweepPhase.SUSPENDED
    return SweepPhase.RUNNING if status.start_time else SweepPhase.PENDING


def _conditions(state: SweepState, status: SweepStatus, previous: SweepStatus, now: str) -> tuple[Condition, ...]:
    suspended = state.suspended and not state.finished
    conditions = {
        ConditionType.ADMITTED: (state.rejection is None, state.rejection or _Reason("Valid", "")),
        ConditionType.SUSPENDED: (suspended, _SUSPENSION[suspended]),
        **(_ended(state, status) if state.finished else _not_ended(state, status)),
    }
    return tuple(
        Condition(
            type=kind,
            status=str(holds),
            reason=reason.reason,
            message=shortened(reason.message, _CONDITION_MESSAGE),
            observed_generation=state.generation,
            last_transition_time=_since(previous.condition(kind), str(holds), now),
        )
        for kind, (holds, reason) in conditions.items()
    )


def _ended(state: SweepState, status: SweepStatus) -> dict[ConditionType, tuple[bool, _Reason]]:
    failed = status.failed or 0
    report = f"The report could not be made: {state.report_failure}" if state.report_failure else ""
    parts = (f"{status.progress} runs ended, {failed} failed.", _first_failure(status), report)
    reason = _Reason(_RUNS_FAILED if failed else _NONE_FAILED, " ".join(part for part in parts if part))
    return {ConditionType.COMPLETE: (not failed, reason), ConditionType.FAILED: (failed > 0, reason)}


def _not_ended(state: SweepState, status: SweepStatus) -> dict[ConditionType, tuple[bool, _Reason]]:
    if state.failure is not None:
        reason = state.failure
    elif state.rejection is not None:
        reason = _Reason(_NOT_ADMITTED, "")
    else:
        reason = _Reason(_IN_PROGRESS, f"{status.progress} runs ended" if status.progress else "")
    return {ConditionType.COMPLETE: (False, reason), ConditionType.FAILED: (False, _Reason(reason.reason, ""))}


def _first_failure(status: SweepStatus) -> str:
    row = next((row for row in status.rows if row.state == RunState.FAILED), None)
    return ": ".join(part for part in (row.name, row.reason, row.message) if part) if row else ""


def _since(before: Condition | None, status: str, now: str) -> str:
    return before.last_transition_time if before is not None and before.status == status else now
