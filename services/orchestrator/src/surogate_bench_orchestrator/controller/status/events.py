"""Events of a RecipeSweep: the changes between two statuses; pure.

| Reason | Type | When |
| --- | --- | --- |
| Admitted | Normal | the sweep can run |
| Invalid, StoreNotUsable | Warning | the sweep cannot run (the reason of condition Admitted) |
| RunSucceeded | Normal | a run has ended with an accuracy |
| RunFailed, RunSkipped | Warning | a run has ended without one; the message has the reason |
| PrepareWarning | Warning | the prepare stage warns about data or model |
| TaskRetried | Warning | an attempt failed and another one was started |
| Suspended, Resumed | Normal | ``spec.suspend`` took effect |
| StoreAway, StoreNotUsable, StoreLocked | Warning | the sweep waits for the store, or for another process in it |
| ClusterAway, ClusterRefused, SubmissionRefused | Warning | the sweep waits for the cluster |
| SweepComplete | Normal | every run succeeded or was skipped, and the report is written |
| SweepFailed | Warning | every run has ended, and some failed |
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from surogate_bench_orchestrator.controller.status.builder import NOT_BLOCKED, shortened
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.resource.status import Condition, ConditionType, StatusRow, SweepPhase, SweepStatus
from surogate_bench_orchestrator.sweep.rows import WARNING, ServiceState

_ENDINGS: Mapping[str, str] = {
    RunState.SUCCEEDED: "RunSucceeded", RunState.FAILED: "RunFailed", RunState.SKIPPED: "RunSkipped",
}  # fmt: skip
_ENDED = {*_ENDINGS, RunState.TRAINED, ServiceState.DONE}
"""States in which no attempt is running."""
_MOST_RUN_EVENTS = 20
"""Events about single runs between two statuses; a thousand runs that fail together are in the status."""
_MESSAGE = 900
"""An Event's message may have 1,024 characters."""


@dataclass(frozen=True, slots=True)
class Event:
    """One Event."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    key: str
    """Equal for the same transition, however often it is recorded; different for another one."""


def events_between(previous: SweepStatus, status: SweepStatus) -> tuple[Event, ...]:
    """Return the Events for the changes between two statuses."""
    about_runs = list(_run_events(previous, status))
    if len(about_runs) > _MOST_RUN_EVENTS:
        more = len(about_runs) - _MOST_RUN_EVENTS
        counted = Event("Normal", "RunsChanged", f"and {more} more runs; see the status", f"more/{status.progress}")
        about_runs = [*about_runs[:_MOST_RUN_EVENTS], counted]
    return (
        *_admission_events(previous, status),
        *about_runs,
        *_suspension_events(previous, status),
        *_completion_events(previous, status),
    )


def _admission_events(previous: SweepStatus, status: SweepStatus) -> Iterator[Event]:
    before, now = previous.condition(ConditionType.ADMITTED), status.condition(ConditionType.ADMITTED)
    if now is None or (
        before and (before.status, before.reason, before.message) == (now.status, now.reason, now.message)
    ):
        return
    if now.is_true:
        message = f"results go to {status.results_uri}" if status.results_uri else "the sweep is valid"
        yield Event("Normal", "Admitted", message, _key(before, now))
    else:
        yield Event("Warning", now.reason, shortened(now.message, _MESSAGE), _key(before, now))


def _run_events(previous: SweepStatus, status: SweepStatus) -> Iterator[Event]:
    before = {row.name: row for row in previous.rows}
    for row in status.rows:
        known = before.get(row.name)
        if known is None or row.state != known.state:
            yield from _state_events(row)
        elif row.attempt > max(1, known.attempt) and row.state not in _ENDED:
            failure = _failure_of(row) or "unknown"
            message = f"{row.name}: attempt {row.attempt}, {row.state.lower()}; the previous one failed: {failure}"
            yield Event("Warning", "TaskRetried", shortened(message, _MESSAGE), f"{row.name}/{row.state}/{row.attempt}")


def _state_events(row: StatusRow) -> Iterator[Event]:
    key = f"{row.name}/{row.state}"
    if row.state in _ENDINGS:
        accuracy = "" if row.accuracy is None else f"accuracy {row.accuracy:.4f}"
        message = " ".join(part for part in (f"{row.name}:", accuracy, _failure_of(row)) if part)
        kind: Literal["Normal", "Warning"] = "Normal" if row.state == RunState.SUCCEEDED else "Warning"
        yield Event(kind, _ENDINGS[row.state], shortened(message, _MESSAGE).rstrip(":"), key)
    elif row.state == ServiceState.DONE and row.reason == WARNING:
        yield Event("Warning", "PrepareWarning", shortened(row.message, _MESSAGE), key)


def _failure_of(row: StatusRow) -> str:
    return ": ".join(part for part in (row.reason, row.message) if part)


def _suspension_events(previous: SweepStatus, status: SweepStatus) -> Iterator[Event]:
    before, now = previous.condition(ConditionType.SUSPENDED), status.condition(ConditionType.SUSPENDED)
    if now is None or now.is_true == (before is not None and before.is_true):
        return
    if now.is_true:
        yield Event("Normal", "Suspended", now.message, _key(before, now))
    elif status.phase not in {SweepPhase.COMPLETE, SweepPhase.FAILED}:
        yield Event("Normal", "Resumed", "the sweep continues", _key(before, now))


def _completion_events(previous: SweepStatus, status: SweepStatus) -> Iterator[Event]:
    before, now = previous.condition(ConditionType.COMPLETE), status.condition(ConditionType.COMPLETE)
    if now is None:
        return
    message = shortened(now.message, _MESSAGE)
    if now.reason not in NOT_BLOCKED and (before is None or now.reason != before.reason):
        yield Event("Warning", now.reason, message, f"{_key(before, now)}/{now.message}")
    if status.phase != previous.phase:
        if status.phase == SweepPhase.COMPLETE:
            yield Event("Normal", "SweepComplete", message, "end")
        elif status.phase == SweepPhase.FAILED:
            yield Event("Warning", "SweepFailed", message, "end")


def _key(before: Condition | None, now: Condition) -> str:
    """Distinguish a transition from a later, equal one by the time of the condition before it."""
    since = before.last_transition_time if before else ""
    return "/".join((now.type, now.status, now.reason, since, now.message))
