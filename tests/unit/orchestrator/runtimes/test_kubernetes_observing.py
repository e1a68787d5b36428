"""How a task is observed from its Job or Deployment, and its pods."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import FAILED, READY_RESTARTS
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import MAX_ATTEMPTS, TIMEOUT
from surogate_bench_orchestrator.runtimes.kubernetes.observation.observing import (
    Limits,
    TaskObjects,
    TaskState,
    observe_job,
    observe_server,
    ready_mark,
)
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import no_node_can_run_it

NOW = 1_800_000_000.0
LIMITS = Limits(unschedulable_s=60, start_s=300, placement_s=1000)
NO_NODE = (
    "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
    "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)
BUSY = (
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/2 nodes are "
    "available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
)
NO_GPU = (
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/2 nodes are "
    "available: 2 Preemption is not helpful for scheduling."
)


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(NOW - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, since: float, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "lastTransitionTime": ago(since), **more}


def pod(phase: str, *, age: float = 10, placed: bool = True, conditions: Any = (), **container: Any) -> dict[str, Any]:
    scheduled = [condition("PodScheduled", "True", age)] if placed else []
    return {
        "metadata": {"name": f"p-{age}", "uid": f"uid-{age}", "creationTimestamp": ago(age)},
        "status": {
            "phase": phase,
            "conditions": [*scheduled, *conditions],
            "containerStatuses": [{"name": "main", "restartCount": 0, "state": {}, **container}],
        },
    }


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": ago(5)}}


def termination(reason: str) -> str:
    return json.dumps({"reason": reason, "message": "its own message"})


def unplaced(message: str, since: float) -> dict[str, Any]:
    return pod(
        "Pending",
        age=since,
        placed=False,
        conditions=[condition("PodScheduled", "False", since, reason="Unschedulable", message=message)],
    )


def job(
    *pods: dict[str, Any],
    timeout_s: float = 600,
    age: float = 100,
    known: dict[str, float] | None = None,
    **status: Any,
) -> TaskState:
    item = {
        "metadata": {"name": "j", "creationTimestamp": ago(age), "annotations": {TIMEOUT: str(timeout_s)}},
        "spec": {},
        "status": status,
    }
    progress = Progress(phase="training", step=3)
    return observe_job(TaskObjects(item=item, pods=pods, progress=progress, now=NOW, limits=LIMITS, **known or {}))


def server(*pods: dict[str, Any], timeout_s: float = 600, **annotations: str) -> TaskState:
    marks = {TIMEOUT: str(timeout_s), MAX_ATTEMPTS: "3", **annotations}
    item = {"metadata": {"name": "s", "creationTimestamp": ago(100), "annotations": marks}, "spec": {}}
    return observe_server(TaskObjects(item=item, pods=pods, progress=Progress(phase="ready"), now=NOW, limits=LIMITS))


def test_a_running_pod_is_a_running_task_with_its_progress() -> None:
    found = job(pod("Running", state={"running": {"startedAt": ago(9)}}), active=1).observation
    assert (found.phase, found.attempt, found.reason, found.elapsed_s) == (Phase.RUNNING, 1, "", 100)
    assert found.progress is not None
    assert found.progress.step == 3


def test_a_complete_job_has_succeeded_and_took_until_then() -> None:
    found = job(conditions=[condition("Complete", "True", 40)], failed=1).observation
    assert (found.phase, found.attempt, found.elapsed_s) == (Phase.SUCCEEDED, 2, 60)


def test_a_failed_job_has_the_reason_of_its_last_pod() -> None:
    failed = pod("Failed", state=ended(2, termination("ConfigError")))
    found = job(failed, conditions=[condition("Failed", "True", 1, reason="PodFailurePolicy")], failed=1).observation
    assert (found.phase, found.attempt, found.reason, found.message) == (
        Phase.FAILED,
        1,
        "ConfigError",
        "its own message",
    )


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ended(137, reason="OOMKilled"), "OOMKilled"),
        (ended(137), "Killed"),
        (ended(1, "no JSON"), "Exited"),
        (ended(75, termination("TransientError")), "TransientError"),
    ],
)
def test_how_an_attempt_ended_is_reported_while_the_next_one_is_pending(state: dict[str, Any], reason: str) -> None:
    found = job(pod("Failed", state=state), failed=1).observation
    assert (found.phase, found.attempt, found.reason) == (Phase.PENDING, 1, reason)


def test_a_pod_that_is_gone_is_reported_until_the_next_one_ends() -> None:
    found = job(pod("Running", state={"running": {"startedAt": ago(9)}}), failed=1).observation
    assert (found.phase, found.attempt, found.reason) == (Phase.RUNNING, 2, "PodDeleted")
    gave_reason = pod("Failed", state=ended(75, termination("TransientError")))
    assert job(gave_reason, failed=2).observation.reason == "TransientError"


NO_CLASS = {
    "reason": "ProvisioningFailed", "message": 'storageclass.storage.k8s.io "fast" not found',
    "involvedObject": {"kind": "PersistentVolumeClaim", "name": "hub-cache"}, "lastTimestamp": ago(3),
}  # fmt: skip


def test_a_pod_without_its_volume_is_reported_with_the_message_of_its_claim_and_fails_after_its_grace() -> None:
    message = NO_GPU.replace("2 Insufficient nvidia.com/gpu", "pod has unbound immediate PersistentVolumeClaims")

    def state_since(since: float) -> TaskState:
        item = {"metadata": {"name": "j", "creationTimestamp": ago(since)}, "spec": {}, "status": {}}
        pods = [unplaced(message, since)]
        return observe_job(TaskObjects(item=item, pods=pods, events=[NO_CLASS], now=NOW, limits=LIMITS))

    early, late = state_since(10), state_since(LIMITS.start_s + 1)
    assert (early.observation.phase, early.observation.reason, early.exceeded) == (
        Phase.PENDING,
        "VolumeNotBound",
        None,
    )
    assert 'PersistentVolumeClaim hub-cache: storageclass.storage.k8s.io "fast" not found' in early.observation.message
    assert late.exceeded is not None
    assert late.exceeded.reason == "VolumeNotBound"


def test_a_container_that_was_put_beside_the_task_is_not_taken_for_it() -> None:
    failed = pod("Failed", state=ended(2, termination("ConfigError")))
    failed["status"]["containerStatuses"].insert(0, {"name": "a-proxy", "restartCount": 4, "state": ended(0)})
    assert job(failed, failed=1).observation.reason == "ConfigError"


def test_an_evicted_pod_is_reported_by_its_own_status() -> None:
    evicted = pod("Failed")
    evicted["status"] |= {"reason": "Evicted", "message": "the node was low on memory"}
    assert job(evicted, failed=1).observation.reason == "Evicted"


@pytest.mark.parametrize(("message", "expected"), [(NO_NODE, True), (NO_GPU, True), (BUSY, False), ("", False)])
def test_the_scheduler_message_shows_whether_a_node_could_run_the_pod(message: str, expected: bool) -> None:
    assert no_node_can_run_it(message) is expected


def test_a_pod_that_no_node_can_run_fails_after_its_grace_period() -> None:
    early = job(unplaced(NO_NODE, 30))
    assert (early.observation.phase, early.observation.unplaced, early.exceeded) == (Phase.PENDING, True, None)
    late = job(unplaced(NO_NODE, 90))
    assert late.exceeded is not None
    assert (late.observation.phase, late.exceeded.reason) == (Phase.FAILED, "NoCapableNode")


def test_a_pod_that_waits_for_a_busy_gpu_waits_longer() -> None:
    assert job(unplaced(BUSY, 900), age=900).observation.phase is Phase.PENDING
    late = job(unplaced(BUSY, 1100), age=1100)
    assert late.exceeded is not None
    assert late.exceeded.reason == "DeadlineExceeded"
    assert "no node had enough resources" in late.exceeded.message


def test_a_pod_that_waits_behind_others_of_its_sweep_is_not_out_of_room() -> None:
    assert job(unplaced(BUSY, 9000), age=9000, known={"held_until": NOW - 900}).exceeded is None
    assert job(unplaced(BUSY, 9000), age=9000, known={"held_until": NOW - 1100}).exceeded is not None


def test_a_pod_whose_nodes_have_just_gone_waits_for_others_as_long_as_a_new_one() -> None:
    assert job(unplaced(NO_GPU, 900), age=900, known={"no_node_since": NOW - 50}).exceeded is None
    assert job(unplaced(NO_GPU, 900), age=900, known={"no_node_since": NOW - 70}).exceeded is not None


def test_a_task_is_queued_until_its_pod_has_a_node_and_again_between_its_attempts() -> None:
    assert job().observation.queued
    assert job(pod("Pending", placed=False)).observation.queued
    assert not job(pod("Pending")).observation.queued
    assert job(pod("Failed", state=ended(1)), failed=1).observation.queued
    assert server().observation.queued
    assert not server(pod("Pending")).observation.queued


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ImportError: no module\n", "exit code 1: ImportError: no module"),
        (f"{'x' * 900}last", f"exit code 1: …{'x' * 695}last"),
        ("", "exit code 1"),
    ],
)
def test_without_a_message_of_ours_a_container_s_end_is_described_by_its_log(message: str, expected: str) -> None:
    why = job(pod("Failed", state=ended(1, message)), failed=1).observation
    assert (why.reason, why.message) == ("Exited", expected)


def test_the_deadline_begins_when_the_first_pod_gets_its_node() -> None:
    first, second = pod("Failed", age=90, state=ended(1)), pod("Running", age=10)
    assert job(first, second, age=500, timeout_s=100).observation.phase is Phase.RUNNING
    late = job(first, second, age=500, timeout_s=80)
    assert late.exceeded is not None
    assert late.exceeded.message == "had not ended after 80 s"


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError"])
def test_a_pod_that_cannot_start_fails_with_the_reason_after_its_grace_period(reason: str) -> None:
    stuck = {"waiting": {"reason": reason, "message": "secret not found"}}
    early = job(pod("Pending", age=100, state=stuck))
    assert (early.observation.phase, early.observation.reason, early.exceeded) == (Phase.PENDING, reason, None)
    late = job(pod("Pending", age=400, state=stuck))
    assert late.exceeded is not None
    assert late.exceeded.reason == reason


@pytest.mark.parametrize("observe", [observe_job, observe_server])
def test_a_task_whose_pods_the_api_refuses_has_the_reason_and_holds_no_slot(
    observe: Callable[[TaskObjects], TaskState],
) -> None:
    item = {"metadata": {"name": "j", "creationTimestamp": ago(9)}, "spec": {}, "status": {}}
    refused = {"reason": "FailedCreate", "message": "exceeded quota: gpus", "lastTimestamp": ago(1), "metadata": {}}
    found = observe(TaskObjects(item=item, pods=(), events=[refused], now=NOW, limits=LIMITS)).observation
    assert (found.phase, found.attempt, found.unplaced) == (Phase.PENDING, 0, True)
    assert (found.reason, found.message) == ("FailedCreate", "exceeded quota: gpus")


def test_a_suspended_job_is_queued_and_holds_no_slot() -> None:
    item = {"metadata": {"name": "j", "creationTimestamp": ago(9)}, "spec": {"suspend": True}, "status": {}}
    found = observe_job(TaskObjects(item=item, pods=(), now=NOW, limits=LIMITS)).observation
    assert (found.reason, found.unplaced) == ("Queued", True)


def test_a_task_that_was_stopped_stays_failed_with_its_reason() -> None:
    mark = {FAILED: termination("NoCapableNode"), TIMEOUT: "5", MAX_ATTEMPTS: "3"}
    item = {"metadata": {"name": "x", "creationTimestamp": ago(9), "annotations": mark}, "spec": {}, "status": {}}
    found = TaskObjects(item=item, pods=(), now=NOW, limits=LIMITS)
    for state in (observe_job(found), observe_server(found)):
        assert (state.observation.phase, state.observation.reason, state.exceeded) == (
            Phase.FAILED,
            "NoCapableNode",
            None,
        )


def test_a_server_runs_while_its_pod_is_ready() -> None:
    running = {"running": {"startedAt": ago(9)}}
    assert (
        server(pod("Running", state=running, conditions=[condition("Ready", "False", 9)])).observation.phase
        is Phase.PENDING
    )
    assert (
        server(pod("Running", state=running, conditions=[condition("Ready", "True", 1)])).observation.phase
        is Phase.RUNNING
    )


def test_a_server_that_is_not_ready_in_time_fails() -> None:
    late = server(
        pod("Running", age=90, state={"running": {"startedAt": ago(70)}}, conditions=[condition("Ready", "False", 90)]),
        timeout_s=60,
    )
    assert late.exceeded is not None
    assert late.exceeded.message == "was not ready after 60 s"


def test_a_server_without_a_node_does_not_lose_its_time_to_start() -> None:
    assert server(unplaced(BUSY, 90), timeout_s=60).exceeded is None


def test_a_server_has_failed_when_its_attempts_in_a_row_are_used_up() -> None:
    crashed = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(1, termination("PermanentX"))}
    assert server(pod("Running", restartCount=1, **crashed)).observation.phase is Phase.PENDING
    used_up = pod("Running", restartCount=2, **crashed)
    state = server(used_up)
    assert (state.observation.phase, state.observation.attempt, state.observation.reason) == (
        Phase.FAILED,
        3,
        "PermanentX",
    )
    assert state.exceeded is not None


def test_attempts_before_a_server_was_ready_do_not_count() -> None:
    crashed = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(1)}
    before = pod("Running", restartCount=2)
    after = pod("Running", restartCount=2, **crashed)
    state = server(after, **{READY_RESTARTS: ready_mark(before)})
    assert (state.observation.phase, state.exceeded) == (Phase.PENDING, None)


def test_bad_input_of_a_server_is_not_tried_again() -> None:
    crashed = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(2, termination("ConfigError"))}
    state = server(pod("Running", **crashed))
    assert (state.observation.phase, state.observation.reason) == (Phase.FAILED, "ConfigError")


def test_a_pod_that_is_being_deleted_does_not_count() -> None:
    leaving = pod("Running", conditions=[condition("Ready", "True", 1)])
    leaving["metadata"]["deletionTimestamp"] = ago(1)
    found = server(leaving).observation
    assert (found.phase, found.attempt) == (Phase.PENDING, 0)
