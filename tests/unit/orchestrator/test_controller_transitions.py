"""Events: one for each thing that happened, and the same ones when it is told again."""

from collections.abc import Mapping
from typing import Any

import pytest

from surogate_bench_orchestrator.controller.status.document import INVALID, status_of
from surogate_bench_orchestrator.controller.status.transitions import Note, notes_of
from surogate_bench_orchestrator.controller.sweep.standing import Standing, Trouble

BASIS = Standing(generation=1, spec_hash="abc", results_uri="s3://b/r")
T0, T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"


def a_status(*, previous: Mapping[str, Any] | None = None, now: str = T0, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"generation": 1, "spec_hash": "abc", "results_uri": "s3://b/r"} | changes
    return status_of(Standing(**fields), previous or {}, now)


def with_run(status: Mapping[str, Any], **row: Any) -> dict[str, Any]:
    return {**status, "progress": "0/1", "runs": [{"name": "fp8-s0", "state": "Training", **row}]}


def reasons(notes: tuple[Note, ...]) -> list[str]:
    return [note.reason for note in notes]


def test_a_sweep_is_admitted_once() -> None:
    first = a_status()
    assert reasons(notes_of({}, first)) == ["Admitted"]
    assert notes_of(first, first) == ()


def test_a_refused_sweep_says_why_and_says_when_it_is_well_again() -> None:
    refused = a_status(refusal=Trouble("StoreNotUsable", "access denied"))
    (note,) = notes_of({}, refused)
    assert (note.kind, note.reason, note.message) == ("Warning", "StoreNotUsable", "access denied")
    assert notes_of(refused, a_status(refusal=Trouble("StoreNotUsable", "access denied"), previous=refused)) == ()
    assert reasons(notes_of(refused, a_status(refusal=Trouble(INVALID, "spec.seeds"), previous=refused))) == [INVALID]
    assert reasons(notes_of(refused, a_status(previous=refused))) == ["Admitted"]


@pytest.mark.parametrize(
    ("state", "kind", "row", "message"),
    [
        ("Succeeded", "Normal", {"accuracy": 0.625}, "fp8-s0: accuracy 0.6250"),
        ("Failed", "Warning", {"reason": "Killed", "message": "exit code 137"}, "fp8-s0: Killed: exit code 137"),
        ("Skipped", "Warning", {"reason": "NoCapableNode"}, "fp8-s0: NoCapableNode"),
    ],
)
def test_the_end_of_a_run_is_told_with_what_came_of_it(
    state: str, kind: str, row: dict[str, Any], message: str
) -> None:
    (note,) = notes_of(with_run(a_status()), with_run(a_status(), state=state, **row))
    assert (note.kind, note.reason, note.message) == (kind, f"Run{state}", message)


def test_what_preparation_warns_of_is_told_once() -> None:
    row = {"name": "prepare", "state": "Done", "reason": "Warning", "message": "8 of 8 test questions are known."}
    warned = {**a_status(), "services": [row]}
    (note,) = notes_of(a_status(), warned)
    assert (note.kind, note.reason, note.message) == ("Warning", "PrepareWarning", "8 of 8 test questions are known.")
    assert notes_of(warned, warned) == ()


def test_another_attempt_is_told_with_what_happened_to_the_one_before() -> None:
    before, again = with_run(a_status(), attempt=1), with_run(a_status(), attempt=2, reason="Killed", message="by 9")
    (note,) = notes_of(before, again)
    assert (note.reason, note.message) == ("TaskRetried", "fp8-s0: attempt 2, training; the one before: Killed: by 9")
    assert notes_of(again, again) == ()
    assert notes_of({**a_status()}, with_run(a_status(), attempt=1)) == ()


def test_that_a_trained_run_took_several_attempts_is_not_told_again() -> None:
    trained = with_run(a_status(), state="Trained", attempt=0)
    assert notes_of(trained, with_run(a_status(), state="Trained", attempt=2)) == ()


def test_suspending_and_going_on_are_told_apart_each_time() -> None:
    plain = a_status()
    suspended = a_status(suspended=True, previous=plain, now=T1)
    resumed = a_status(previous=suspended, now=T2)
    again = a_status(suspended=True, previous=resumed, now="2026-01-01T03:00:00Z")
    told = [notes_of(plain, suspended), notes_of(suspended, resumed), notes_of(resumed, again)]
    assert [reasons(notes) for notes in told] == [["Suspended"], ["Resumed"], ["Suspended"]]
    assert told[0][0].key != told[2][0].key


def test_a_store_that_is_away_is_told_when_it_goes_and_not_while_it_stays_away() -> None:
    plain = a_status()
    away = a_status(trouble=Trouble("StoreAway", "no route"), previous=plain, now=T1)
    still = a_status(trouble=Trouble("StoreAway", "no route to host"), previous=away, now=T2)
    assert reasons(notes_of(plain, away)) == ["StoreAway"]
    assert notes_of(away, still) == ()
    assert notes_of(away, a_status(previous=away, now=T2)) == ()


@pytest.mark.parametrize(("failed", "reason"), [(0, "SweepComplete"), (2, "SweepFailed")])
def test_the_end_of_the_sweep_is_told_once(failed: int, reason: str) -> None:
    running = {**a_status(), "failed": failed, "progress": "3/3"}
    ended = a_status(finished=True, previous=running, now=T1)
    assert reasons(notes_of(running, ended)) == [reason]
    assert notes_of(ended, ended) == ()


def test_the_same_transition_seen_again_later_has_the_same_key() -> None:
    plain = a_status()
    first = notes_of(plain, a_status(suspended=True, previous=plain, now=T1))
    second = notes_of(plain, a_status(suspended=True, previous=plain, now=T2))
    assert first == second


def test_a_thousand_runs_that_fail_together_do_not_flood_the_api() -> None:
    runs = [{"name": f"fp8-s{seed}", "state": "Failed", "reason": "ConfigError"} for seed in range(1000)]
    notes = notes_of(a_status(), {**a_status(), "progress": "1000/1000", "runs": runs})
    assert len(notes) == 21
    assert notes[-1].message == "and 980 more runs; see the status"


def test_messages_fit_into_an_event() -> None:
    refused = a_status(refusal=Trouble(INVALID, "x" * 5000))
    rows = with_run(a_status(previous=refused), state="Failed", reason="Killed", message="y" * 5000)
    assert all(len(note.message) <= 1024 for note in (*notes_of({}, refused), *notes_of(refused, rows)))
