"""Events: one for each transition, and the same one if the transition is recorded again."""

from typing import Any

import pytest

from surogate_bench_orchestrator.controller.status.builder import INVALID, build_status
from surogate_bench_orchestrator.controller.status.events import Event, events_between
from surogate_bench_orchestrator.controller.status.state import SweepState
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.resource.status import StatusRow, SweepStatus

NEW = SweepStatus()
T0, T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"


def a_status(*, previous: SweepStatus = NEW, now: str = T0, **changes: Any) -> SweepStatus:
    fields: dict[str, Any] = {"generation": 1, "spec_hash": "abc", "results_uri": "s3://b/r"} | changes
    return build_status(SweepState(**fields), previous, now)


def with_rows(status: SweepStatus, **fields: Any) -> SweepStatus:
    return SweepStatus.model_validate(status.model_dump() | fields)


def with_run(status: SweepStatus, **row: Any) -> SweepStatus:
    run = StatusRow.model_validate({"name": "fp8-s0", "state": "Training"} | row)
    return status.model_copy(update={"progress": "0/1", "runs": (run,)})


def reasons(events: tuple[Event, ...]) -> list[str]:
    return [event.reason for event in events]


def test_a_sweep_is_admitted_once() -> None:
    first = a_status()
    assert reasons(events_between(NEW, first)) == ["Admitted"]
    assert events_between(first, first) == ()


def test_a_rejected_sweep_has_the_reason_and_is_admitted_later() -> None:
    refused = a_status(rejection=Failure("StoreNotUsable", "access denied"))
    (event,) = events_between(NEW, refused)
    assert (event.kind, event.reason, event.message) == ("Warning", "StoreNotUsable", "access denied")
    assert (
        events_between(refused, a_status(rejection=Failure("StoreNotUsable", "access denied"), previous=refused)) == ()
    )
    assert reasons(events_between(refused, a_status(rejection=Failure(INVALID, "spec.seeds"), previous=refused))) == [
        INVALID
    ]
    assert reasons(events_between(refused, a_status(previous=refused))) == ["Admitted"]


@pytest.mark.parametrize(
    ("state", "kind", "row", "message"),
    [
        ("Succeeded", "Normal", {"accuracy": 0.625}, "fp8-s0: accuracy 0.6250"),
        ("Failed", "Warning", {"reason": "Killed", "message": "exit code 137"}, "fp8-s0: Killed: exit code 137"),
        ("Skipped", "Warning", {"reason": "NoCapableNode"}, "fp8-s0: NoCapableNode"),
    ],
)
def test_the_end_of_a_run_is_recorded_with_its_result(state: str, kind: str, row: dict[str, Any], message: str) -> None:
    (event,) = events_between(with_run(a_status()), with_run(a_status(), state=state, **row))
    assert (event.kind, event.reason, event.message) == (kind, f"Run{state}", message)


def test_a_warning_of_preparation_is_recorded_once() -> None:
    row = {"name": "prepare", "state": "Done", "reason": "Warning", "message": "8 of 8 test questions are known."}
    warned = with_rows(a_status(), services=[row])
    (event,) = events_between(a_status(), warned)
    assert (event.kind, event.reason, event.message) == (
        "Warning",
        "PrepareWarning",
        "8 of 8 test questions are known.",
    )
    assert events_between(warned, warned) == ()


def test_another_attempt_is_recorded_with_the_failure_of_the_previous_one() -> None:
    before, again = with_run(a_status(), attempt=1), with_run(a_status(), attempt=2, reason="Killed", message="by 9")
    (event,) = events_between(before, again)
    assert (event.reason, event.message) == (
        "TaskRetried",
        "fp8-s0: attempt 2, training; the previous one failed: Killed: by 9",
    )
    assert events_between(again, again) == ()
    assert events_between(a_status(), with_run(a_status(), attempt=1)) == ()


def test_that_a_trained_run_took_several_attempts_is_not_recorded_again() -> None:
    trained = with_run(a_status(), state="Trained", attempt=0)
    assert events_between(trained, with_run(a_status(), state="Trained", attempt=2)) == ()


def test_each_suspension_and_resumption_is_recorded() -> None:
    plain = a_status()
    suspended = a_status(suspended=True, previous=plain, now=T1)
    resumed = a_status(previous=suspended, now=T2)
    again = a_status(suspended=True, previous=resumed, now="2026-01-01T03:00:00Z")
    recorded = [events_between(plain, suspended), events_between(suspended, resumed), events_between(resumed, again)]
    assert [reasons(events) for events in recorded] == [["Suspended"], ["Resumed"], ["Suspended"]]
    assert recorded[0][0].key != recorded[2][0].key


def test_an_unreachable_store_is_recorded_once_and_not_again_while_it_stays_so() -> None:
    plain = a_status()
    away = a_status(failure=Failure("StoreAway", "no route"), previous=plain, now=T1)
    still = a_status(failure=Failure("StoreAway", "no route to host"), previous=away, now=T2)
    assert reasons(events_between(plain, away)) == ["StoreAway"]
    assert events_between(away, still) == ()
    assert events_between(away, a_status(previous=away, now=T2)) == ()


@pytest.mark.parametrize(("failed", "reason"), [(0, "SweepComplete"), (2, "SweepFailed")])
def test_the_end_of_the_sweep_is_recorded_once(failed: int, reason: str) -> None:
    running = with_rows(a_status(), failed=failed, progress="3/3")
    ended = a_status(finished=True, previous=running, now=T1)
    assert reasons(events_between(running, ended)) == [reason]
    assert events_between(ended, ended) == ()


def test_the_same_transition_found_again_later_has_the_same_key() -> None:
    plain = a_status()
    first = events_between(plain, a_status(suspended=True, previous=plain, now=T1))
    second = events_between(plain, a_status(suspended=True, previous=plain, now=T2))
    assert first == second


def test_a_thousand_runs_that_fail_together_do_not_flood_the_api() -> None:
    runs = [{"name": f"fp8-s{seed}", "state": "Failed", "reason": "ConfigError"} for seed in range(1000)]
    events = events_between(a_status(), with_rows(a_status(), progress="1000/1000", runs=runs))
    assert len(events) == 21
    assert events[-1].message == "and 980 more runs; see the status"


def test_messages_fit_into_an_event() -> None:
    refused = a_status(rejection=Failure(INVALID, "x" * 5000))
    rows = with_run(a_status(previous=refused), state="Failed", reason="Killed", message="y" * 5000)
    assert all(len(event.message) <= 1024 for event in (*events_between(NEW, refused), *events_between(refused, rows)))
