"""The status of a RecipeSweep, from how it stands and from the status before; pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from surogate_bench.layout import BASE_RUN
from surogate_bench_orchestrator.controller.sweep.standing import Standing, Trouble
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.domain.plan import Plan, Run
from surogate_bench_orchestrator.sweep.rows import ViewRow, run_rows, service_rows
from surogate_bench_orchestrator.sweep.runner import Snapshot

Status = dict[str, Any]

INVALID = "Invalid"
"""Reason of a sweep that can never run as it is."""

_MESSAGES_BYTES = 150_000
"""Room for the messages of all rows: 1,000 rows with every field, and the API server's record of who owns each field,
stay below the 1.5 MiB that etcd takes."""
_LONGEST, _SHORTEST = 1000, 60
"""Characters of a row's message."""
_CONDITION_MESSAGE = 4000
_KEPT = (
    "specHash", "resultsURI", "startTime", "completionTime", "progress", "failed", "best", "runs", "services",
)  # fmt: skip
_FIGURES = frozenset({"detail", "step", "total", "loss", "tokensPerSecond", "elapsedSeconds"})
"""Fields of a row that change all the time."""


def status_of(standing: Standing, previous: Mapping[str, Any], now: str) -> Status:
    """Say how a sweep stands.

    Args:
        standing: What is known now; what it does not know is kept from before.
        previous: The status so far; empty for a new sweep.
        now: RFC 3339.
    """
    status: Status = {"observedGeneration": standing.generation}
    kept = {} if standing.refusal and standing.refusal.reason == INVALID else previous
    for name in _KEPT:
        if name in kept:
            status[name] = kept[name]
    if standing.results_uri:
        status |= {"specHash": standing.spec_hash, "resultsURI": standing.results_uri}
    if standing.snapshot is not None:
        status |= _progress(standing, standing.snapshot)
        if "startTime" not in status and _has_begun(standing.snapshot):
            status["startTime"] = now
    if standing.finished:
        status.setdefault("completionTime", now)
    status["phase"] = _phase(standing, begun="startTime" in status, failed=status.get("failed", 0))
    status["conditions"] = _conditions(standing, status, previous, now)
    return status


def is_final(status: Mapping[str, Any]) -> bool:
    """Whether nothing more will happen to the sweep."""
    return any(condition_is_true(status, kind) for kind in ("Complete", "Failed"))


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition by type; empty if there is none."""
    return next((each for each in status.get("conditions") or () if each.get("type") == kind), {})


def condition_is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is there and True."""
    return condition(status, kind).get("status") == "True"


def differs_in_figures_only(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two statuses tell the same but for figures of running tasks."""
    return _without_figures(one) == _without_figures(other)


def _without_figures(status: Mapping[str, Any]) -> Status:
    return {
        **status,
        **{
            rows: [{name: value for name, value in row.items() if name not in _FIGURES} for row in status[rows]]
            for rows in ("runs", "services")
            if rows in status
        },
    }


def _progress(standing: Standing, snapshot: Snapshot) -> Status:
    states = [status.state for status in snapshot.states.values()]
    shown = run_rows(snapshot)
    services = service_rows(snapshot)
    limit = _message_limit([*shown, *services])
    runs = [
        _row(row, limit) | _identity(run, f"{standing.results_uri}/runs/{run.name}")
        for run, row in zip(snapshot.plan.runs, shown, strict=True)
    ]
    status: Status = {
        "progress": f"{sum(state.is_terminal for state in states)}/{len(states)}",
        "failed": states.count(RunState.FAILED),
        "runs": runs,
        "services": [_row(row, limit) for row in services],
    }
    best = _best(snapshot.plan, shown)
    return status | ({"best": best} if best else {})


def _identity(run: Run, uri: str) -> Status:
    seed = {} if run.seed is None else {"seed": run.seed}
    return {"recipe": run.recipe.name if run.recipe else BASE_RUN, **seed, "uri": uri}


def _row(row: ViewRow, limit: int) -> Status:
    reason, _, message = row.trouble.partition(": ")  # as Failure writes itself; a reason is one word
    fields = {
        "name": row.name,
        "state": row.state,
        "detail": row.detail,
        "attempt": row.attempt,
        "step": row.step,
        "total": row.total,
        "loss": _rounded(row.loss, 4),
        "tokensPerSecond": _rounded(row.tokens_per_second, 1),
        "elapsedSeconds": _rounded(row.elapsed_s, 1),
        "accuracy": _rounded(row.accuracy, 6),
        "stderr": _rounded(row.stderr, 6),
        "reason": reason,
        "message": shortened(message, limit),
    }
    known = {name: value for name, value in fields.items() if value is not None and value != ""}
    return {name: value for name, value in known.items() if value != 0 or name not in {"attempt", "step", "total"}}


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _message_limit(rows: Iterable[ViewRow]) -> int:
    with_message = sum(bool(row.trouble) for row in rows)
    return max(_SHORTEST, min(_LONGEST, _MESSAGES_BYTES // max(1, with_message)))


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, with an ellipsis where something was cut off."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _best(plan: Plan, rows: Sequence[ViewRow]) -> str:
    """The recipe with the highest mean accuracy over its seeds so far; the untouched base does not take part."""
    scores: dict[str, list[float]] = {}
    for run, row in zip(plan.runs, rows, strict=True):
        if run.recipe is not None and row.accuracy is not None:
            scores.setdefault(run.recipe.name, []).append(row.accuracy)
    if not scores:
        return ""
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    name = max(means, key=lambda each: means[each])
    return f"{name} {means[name]:.3f}"


def _has_begun(snapshot: Snapshot) -> bool:
    observed = snapshot.observed
    return bool(observed.done) or any(observed.is_active(task) for task in snapshot.plan.tasks)


def _phase(standing: Standing, *, begun: bool, failed: int) -> str:
    if standing.refusal is not None and standing.refusal.reason == INVALID:
        return "Rejected"
    if standing.finished:
        return "Failed" if failed else "Complete"
    if standing.suspended:
        return "Suspended"
    return "Running" if begun else "Pending"


def _conditions(standing: Standing, status: Status, previous: Mapping[str, Any], now: str) -> list[Status]:
    failed = int(status.get("failed", 0))
    ended = standing.finished
    parts = (f"{status.get('progress', '')} runs ended, {failed} failed.", _first_failure(status), standing.remark)
    summary = " ".join(part for part in parts if part)
    waiting = standing.trouble or _waits_for(standing, status)
    admitted = standing.refusal is None
    told = {
        "Admitted": (admitted, standing.refusal or Trouble("Valid", "")),
        "Suspended": (standing.suspended and not ended, _SUSPENSION[standing.suspended and not ended]),
        "Complete": (ended and not failed, Trouble("RunsFailed" if failed else "NoneFailed", summary)),
        "Failed": (ended and failed > 0, Trouble("RunsFailed" if failed else "NoneFailed", summary)),
    }
    if not ended:
        told |= {"Complete": (False, waiting), "Failed": (False, Trouble(waiting.reason, ""))}
    return [
        {
            "type": kind,
            "status": str(holds),
            "reason": words.reason,
            "message": shortened(words.message, _CONDITION_MESSAGE),
            "observedGeneration": standing.generation,
            "lastTransitionTime": _since(condition(previous, kind), str(holds), now),
        }
        for kind, (holds, words) in told.items()
    ]


_SUSPENSION = {
    True: Trouble("Requested", "spec.suspend is true: tasks are stopped, and go on when it is false"),
    False: Trouble("NotRequested", ""),
}


def _first_failure(status: Status) -> str:
    """What failed first in the order of the rows, which is that in which stages depend on each other."""
    rows = (*status.get("services", ()), *status.get("runs", ()))
    row = next((row for row in rows if row["state"] == RunState.FAILED), None)
    if row is None:
        return ""
    return ": ".join(str(part) for part in (row["name"], row.get("reason"), row.get("message")) if part)


def _waits_for(standing: Standing, status: Status) -> Trouble:
    if standing.refusal:
        return Trouble("NotAdmitted", "")
    return Trouble("InProgress", f"{status['progress']} runs ended" if "progress" in status else "")


def _since(before: Mapping[str, Any], status: str, now: str) -> str:
    return str(before["lastTransitionTime"]) if before.get("status") == status else now
