"""Events of a RecipeSweep: what changed between two statuses; pure.

| Reason | Type | When |
| --- | --- | --- |
| Admitted | Normal | the sweep can run |
| Invalid, StoreNotUsable | Warning | it cannot (the reason of condition Admitted) |
| RunSucceeded | Normal | a run has its accuracy |
| RunFailed, RunSkipped | Warning | a run ended without one; the message says why |
| PrepareWarning | Warning | data or model have something to know before the results are trusted |
| TaskRetried | Warning | an attempt failed and another follows |
| Suspended, Resumed | Normal | ``spec.suspend`` took effect |
| StoreAway, StoreNotUsable, SubmissionRefused | Warning | the sweep waits for something outside |
| SweepComplete | Normal | every run succeeded or was skipped, and the report is written |
| SweepFailed | Warning | every run has ended and some failed |
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from surogate_bench_orchestrator.controller.status.document import condition, condition_is_true, shortened
from surogate_bench_orchestrator.sweep.rows import WARNING

_ENDINGS = {"Succeeded": "RunSucceeded", "Failed": "RunFailed", "Skipped": "RunSkipped"}
_OVER = {*_ENDINGS, "Trained", "Done"}
"""States in which nothing is being attempted."""
_ORDINARY = {"InProgress", "NotAdmitted", "NoneFailed", "RunsFailed", ""}
"""Reasons of condition Complete that are no trouble."""
_MOST_ABOUT_RUNS = 20
"""Events about single runs in one go; of a thousand that fail together the status tells."""
_MESSAGE = 900
"""An event's message may have 1,024 characters."""


@dataclass(frozen=True, slots=True)
class Note:
    """One event."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    key: str
    """The same for the same transition, however often it is told; of another one different."""


def notes_of(previous: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Note, ...]:
    """Say what happened between two statuses."""
    about_runs = list(_about_runs(previous, status))
    if len(about_runs) > _MOST_ABOUT_RUNS:
        more = len(about_runs) - _MOST_ABOUT_RUNS
        counted = Note("Normal", "RunsChanged", f"and {more} more runs; see the status", f"more/{status['progress']}")
        about_runs = [*about_runs[:_MOST_ABOUT_RUNS], counted]
    return (*_about_admission(previous, status), *about_runs, *_about_the_sweep(previous, status))


def _about_admission(previous: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Note]:
    before, now = condition(previous, "Admitted"), condition(status, "Admitted")
    told = ("status", "reason", "message")
    if [before.get(name) for name in told] == [now.get(name) for name in told]:
        return
    if now["status"] == "True":
        message = f"results go to {status['resultsURI']}" if "resultsURI" in status else "the sweep is valid"
        yield Note("Normal", "Admitted", message, _key(before, now))
    else:
        yield Note("Warning", now["reason"], shortened(now["message"], _MESSAGE), _key(before, now))


def _about_runs(previous: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Note]:
    before = {row["name"]: row for rows in ("services", "runs") for row in previous.get(rows) or ()}
    for row in (*(status.get("services") or ()), *(status.get("runs") or ())):
        yield from _about_run(before.get(row["name"], {}), row)


def _about_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Note]:
    name, state, attempt = now["name"], now["state"], now.get("attempt", 0)
    why = ": ".join(part for part in (now.get("reason", ""), now.get("message", "")) if part)
    if state != before.get("state"):
        if state in _ENDINGS:
            score = f"accuracy {now['accuracy']:.4f}" if "accuracy" in now else ""
            message = shortened(" ".join(part for part in (f"{name}:", score, why) if part), _MESSAGE)
            kind: Literal["Normal", "Warning"] = "Normal" if state == "Succeeded" else "Warning"
            yield Note(kind, _ENDINGS[state], message.rstrip(":"), f"{name}/{state}")
        elif state == "Done" and now.get("reason") == WARNING:
            yield Note("Warning", "PrepareWarning", shortened(now.get("message", ""), _MESSAGE), f"{name}/{state}")
    elif attempt > before.get("attempt", 0) and attempt > 1 and state not in _OVER:
        message = shortened(f"{name}: attempt {attempt}, {state.lower()}; the one before: {why or 'unknown'}", _MESSAGE)
        yield Note("Warning", "TaskRetried", message, f"{name}/{state}/{attempt}")


def _about_the_sweep(previous: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Note]:
    was, now = condition(previous, "Suspended"), condition(status, "Suspended")
    if condition_is_true(status, "Suspended") != condition_is_true(previous, "Suspended"):
        if now["status"] == "True":
            yield Note("Normal", "Suspended", now["message"], _key(was, now))
        elif status["phase"] not in {"Complete", "Failed"}:
            yield Note("Normal", "Resumed", "the sweep goes on", _key(was, now))
    was, now = condition(previous, "Complete"), condition(status, "Complete")
    if now["reason"] not in _ORDINARY and now["reason"] != was.get("reason"):
        yield Note("Warning", now["reason"], shortened(now["message"], _MESSAGE), f"{_key(was, now)}/{now['message']}")
    if status["phase"] != previous.get("phase"):
        if status["phase"] == "Complete":
            yield Note("Normal", "SweepComplete", shortened(now["message"], _MESSAGE), "end")
        elif status["phase"] == "Failed":
            yield Note("Warning", "SweepFailed", shortened(now["message"], _MESSAGE), "end")


def _key(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Tell one transition of a condition from the next one alike, by the moment from which the change is seen."""
    return "/".join(
        (now["type"], now["status"], now["reason"], str(before.get("lastTransitionTime", "")), now["message"])
    )
