"""How the task of a foreign trainer is observed from the containers of its pod."""

from datetime import UTC, datetime
from typing import Any

import pytest

from surogate_bench.processes.progress import Progress, Termination
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import COMMAND_TIMEOUT, TIMEOUT
from surogate_bench_orchestrator.runtimes.kubernetes.observation.observing import (
    Limits,
    TaskObjects,
    TaskState,
    observe_job,
)
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import containers_with_logs, slot_held_until

NOW = 1_800_000_000.0
WAITING: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
State = dict[str, Any]


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(NOW - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(code: int, message: str = "", reason: str = "Error", *, since: float = 50) -> State:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": ago(since)}}


def running(since: float) -> State:
    return {"running": {"startedAt": ago(since)}}


def pod(phase: str, prepare: State, command: State = WAITING, main: State = WAITING, *, age: float = 500) -> State:
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(age)}
    return {
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": ago(age)},
        "status": {
            "phase": phase,
            "conditions": [placed],
            "initContainerStatuses": [
                {"name": "a-proxy", "state": running(400)},
                {"name": "prepare", "state": prepare},
                {"name": "trainer", "state": command},
            ],
            "containerStatuses": [{"name": "main", "state": main}],
        },
    }


def state_of(*pods: State, progress: Progress | None = None, timeout_s: float = 100, **status: Any) -> TaskState:
    marks = {TIMEOUT: "100000", COMMAND_TIMEOUT: f"{timeout_s:g}"}
    item = {
        "metadata": {"name": "j", "creationTimestamp": ago(600), "annotations": marks}, "spec": {}, "status": status,
    }  # fmt: skip
    limits = Limits(unschedulable_s=60, start_s=300, placement_s=1000)
    return observe_job(TaskObjects(item=item, pods=pods, progress=progress, now=NOW, limits=limits))


def test_the_task_runs_while_any_of_its_containers_does_and_its_progress_says_which() -> None:
    preparing = pod("Pending", running(5))
    training = pod("Pending", ended(0), running(5))
    collecting = pod("Running", ended(0), ended(0), running(5))
    phases = []
    for each in (preparing, training, collecting):
        observation = state_of(each, progress=Progress(phase="checking") if each is collecting else None).observation
        assert (observation.phase, observation.attempt, observation.queued) == (Phase.RUNNING, 1, False)
        assert observation.progress is not None
        phases.append(observation.progress.phase)
    assert phases == ["preparing", "training", "checking"]
    assert state_of(pod("Pending", WAITING)).observation.phase is Phase.PENDING


ENDS: dict[str, tuple[State, str, str]] = {
    "a failure": (
        ended(3, "no kernel\n"), "ForeignTrainerError",
        "the command ended with exit code 3.\nThe last lines of its output:\nno kernel",
    ),
    "a silent failure": (
        ended(1), "ForeignTrainerError", "the command ended with exit code 1.\nIt wrote nothing.",
    ),
    "a wish for another attempt": (
        ended(75, "busy"), "TransientError",
        "the command asks for another attempt (exit code 75).\nThe last lines of its output:\nbusy",
    ),
    "a signal": (
        ended(143, "so far"), "Killed",
        "the command was killed by signal 15.\nThe last lines of its output:\nso far",
    ),
    "memory": (
        ended(137, "", "OOMKilled"), "OOMKilled", "exceeded its memory limit; raise it in the chart's values",
    ),
    "no such program": (
        ended(128, 'exec: "train": executable file not found in $PATH', "StartError"), "ForeignTrainerError",
        'the command cannot be started: exec: "train": executable file not found in $PATH.',
    ),
    "words of a service": (
        ended(1, Termination(reason="NoCapableNode", message="x").model_dump_json()), "ForeignTrainerError",
        "the command ended with exit code 1.\nThe last lines of its output:\n"
        '{"reason":"NoCapableNode","message":"x"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("state", "reason", "message"), ENDS.values(), ids=ENDS)
def test_how_the_command_ended_is_reported_as_on_a_single_machine(state: State, reason: str, message: str) -> None:
    failed = pod("Failed", ended(0), state)
    again = state_of(failed, failed=1).observation
    assert (again.phase, again.attempt, again.reason, again.message) == (Phase.PENDING, 1, reason, message)
    over = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "Container trainer failed"}
    final = state_of(failed, conditions=[over], failed=1).observation
    assert (final.phase, final.reason, final.message) == (Phase.FAILED, reason, message)


def test_secrets_and_control_characters_in_the_last_lines_are_removed() -> None:
    failed = pod("Failed", ended(0), ended(1, "\x1b[31mHF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123456789"))
    message = state_of(failed, failed=1).observation.message
    assert "hf_abcdefghij" not in message
    assert "\x1b" not in message


def test_failures_of_our_containers_are_reported_with_their_messages() -> None:
    said = Termination(reason="ForeignTrainerError", message="left no usable adapter").model_dump_json()
    prepare = state_of(pod("Failed", ended(4, said)), failed=1).observation
    collect = state_of(pod("Failed", ended(0), ended(0), ended(4, said)), failed=1).observation
    assert {(each.reason, each.message) for each in (prepare, collect)} == {
        ("ForeignTrainerError", "left no usable adapter"),
    }


def test_a_pod_that_was_evicted_between_two_containers_is_reported_by_its_status() -> None:
    evicted = pod("Failed", ended(0), WAITING)
    evicted["status"] |= {"reason": "Evicted", "message": "the node was low on disk"}
    assert state_of(evicted, failed=1).observation.reason == "Evicted"


def test_the_deadline_is_that_of_the_command_in_one_attempt() -> None:
    in_time = state_of(pod("Pending", ended(0), running(99)))
    assert (in_time.observation.phase, in_time.exceeded) == (Phase.RUNNING, None)
    late = state_of(pod("Pending", ended(0), running(101)), timeout_s=100)
    assert late.exceeded is not None
    assert (late.exceeded.reason, late.exceeded.message) == (
        "ForeignTrainerError", "the command had not ended after 100 s",
    )  # fmt: skip
    assert late.observation.phase is Phase.FAILED
    assert state_of(pod("Running", ended(0), ended(0, since=1), running(101))).exceeded is None


def test_an_image_that_cannot_be_pulled_fails_the_task_after_its_grace_from_when_it_was_needed() -> None:
    absent = {"waiting": {"reason": "ImagePullBackOff", "message": "team/other:1 not found"}}
    early = state_of(pod("Pending", ended(0, since=299), absent, age=5000))
    late = state_of(pod("Pending", ended(0, since=301), absent, age=5000))
    assert (early.observation.phase, early.observation.reason, early.exceeded) == (
        Phase.PENDING, "ImagePullBackOff", None,
    )  # fmt: skip
    assert late.exceeded is not None
    assert late.exceeded.message == "team/other:1 not found"


def test_a_slot_is_held_until_the_last_container_ended() -> None:
    assert slot_held_until(pod("Failed", ended(0, since=90), ended(3, since=40)), NOW) == NOW - 40
    assert slot_held_until(pod("Pending", ended(0), running(5)), NOW) == NOW


def test_logs_are_those_of_the_containers_that_have_started() -> None:
    assert containers_with_logs(pod("Pending", WAITING)) == ("main",)
    assert containers_with_logs(pod("Pending", ended(0), running(5))) == ("prepare", "trainer")
    assert containers_with_logs(pod("Succeeded", ended(0), ended(0), ended(0))) == ("prepare", "trainer", "main")
