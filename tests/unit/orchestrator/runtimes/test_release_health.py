"""Why the bundled store is not ready: what its Deployment, pods and events say, in words for the sweeps' status."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from surogate_bench.errors import TransientError
from surogate_bench_orchestrator.controller.sweep.store_connection import StoreConnection
from surogate_bench_orchestrator.runtimes.kubernetes.release import Release
from surogate_bench_orchestrator.runtimes.kubernetes.settings import StoreSettings

Object = dict[str, Any]
POD, CLAIM = "demo-object-store-abc", "demo-object-store"
SELECTOR = "app.kubernetes.io/instance=demo,app.kubernetes.io/component=object-store"
PLACED = {"type": "PodScheduled", "status": "True"}


class Api:
    """Answers lists as the API server does."""

    def __init__(self) -> None:
        self.deployments: list[Object] = [{"metadata": {"name": "demo-object-store"}, "spec": {"replicas": 1}}]
        self.pods: list[Object] = []
        self.events: list[Object] = []
        self.away = False

    def list(self, path: str, **query: str) -> list[Object]:
        if self.away:
            raise TransientError("no route")
        kind = path.removeprefix("/api/v1/namespaces/bench/").removeprefix("/apis/apps/v1/namespaces/bench/")
        if kind == "events":
            name = query["fieldSelector"].removeprefix("involvedObject.name=")
            return [event for event in self.events if event["involvedObject"]["name"] == name]
        assert query == {"labelSelector": SELECTOR}
        return {"deployments": self.deployments, "pods": self.pods}[kind]

    def why(self) -> str:
        return Release(self, "bench", "demo").why_store_is_not_ready()


@pytest.fixture
def api() -> Api:
    return Api()


def pod(*conditions: Object, init: Object | None = None, server: Object | None = None, **more: Any) -> Object:
    image = {"image": "versity/versitygw:v1", "ready": False}
    return {
        "metadata": {"name": POD, "creationTimestamp": "2026-01-01T00:00:00Z", **more},
        "spec": {"volumes": [{"name": "tmp"}, {"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}]},
        "status": {
            "phase": "Running" if server and "running" in server["state"] else "Pending",
            "conditions": list(conditions),
            "initContainerStatuses": [{"name": "make-bucket", **image, **(init or {})}],
            "containerStatuses": [{"name": "versitygw", **image, **(server or {})}],
        },
    }


def event(reason: str, message: str, name: str = POD, at: str = "2026-01-01T00:00:01Z") -> Object:
    return {"reason": reason, "message": message, "involvedObject": {"name": name}, "lastTimestamp": at}


def waiting(reason: str, message: str = "", **last: Any) -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **({"lastState": last} if last else {})}


def ended(code: int, message: str = "", reason: str = "Error") -> Object:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def test_a_store_that_is_ready_or_not_of_the_release_needs_no_explanation(api: Api) -> None:
    api.pods = [pod(PLACED, {"type": "Ready", "status": "True"})]
    assert api.why() == ""
    api.pods, api.deployments = [], []
    assert api.why() == ""


def test_while_the_api_does_not_answer_nothing_is_said(api: Api) -> None:
    api.away = True
    assert api.why() == ""


def test_a_store_without_a_pod_says_why_it_has_none(api: Api) -> None:
    [deployment] = api.deployments
    assert api.why() == "Deployment demo-object-store has no pod: it is being created."
    deployment["status"] = {
        "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota"}]
    }
    assert api.why() == "Deployment demo-object-store has no pod: pods is forbidden: exceeded quota."
    deployment["spec"]["replicas"] = 0
    assert api.why() == "Deployment demo-object-store has 0 replicas. Scale it to 1."


CRASHED = ended(1, "PersistentVolumeClaim demo: not writable. Choose another.")
SAID = "init container make-bucket ended with exit code 1: PersistentVolumeClaim demo: not writable. Choose another."
SERVES = {"state": {"running": {}}}
CASES: dict[str, tuple[Object, str]] = {
    "it crashes": (pod(PLACED, init={"state": CRASHED}), SAID),
    "it waits for its next attempt": (
        pod(PLACED, init=waiting("CrashLoopBackOff", "back-off 20s restarting", **CRASHED)),
        SAID,
    ),
    "it runs again after a crash": (pod(PLACED, server=SERVES | {"lastState": ended(2, "Error:\n  bind: in use\n")}),
        "container versitygw ended with exit code 2: Error: bind: in use."),
    "it said nothing": (
        pod(PLACED, server={"state": ended(137)}),
        "container versitygw ended with exit code 137 and no message. "
        f"See: kubectl logs {POD} -c versitygw --previous.",
    ),
    "it has too little memory": (
        pod(PLACED, server={"state": ended(137, reason="OOMKilled")}),
        "container versitygw used more memory than its limit (OOMKilled). "
        "Raise objectStore.bundled.resources.limits.memory.",
    ),
    "there is no image": (
        pod(PLACED, server=waiting("ErrImagePull", "versity: not found")),
        "container versitygw has no image versity/versitygw:v1: versity: not found. "
        "Check objectStore.bundled.image, images.registry, images.tag and images.pullSecrets.",
    ),
    "there is no image, and it waits": (
        pod(PLACED, server=waiting("ImagePullBackOff", 'Back-off pulling image "v": ErrImagePull: versity: not found')),
        "container versitygw has no image versity/versitygw:v1: versity: not found. "
        "Check objectStore.bundled.image, images.registry, images.tag and images.pullSecrets.",
    ),
    "there is no Secret": (
        pod(PLACED, server=waiting("CreateContainerConfigError", 'secret "mine" not found')),
        'container versitygw cannot be started: CreateContainerConfigError: secret "mine" not found.',
    ),
    "there is no room": (
        pod({"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available: 2 Insufficient memory."}),
        "no node accepts it: 0/2 nodes are available: 2 Insufficient memory. "
        "Make room on a node, or change objectStore.bundled.nodeSelector, .tolerations or .resources.",
    ),
    "it does not answer": (
        pod(PLACED, server=SERVES),
        f"container versitygw runs, but its probe does not succeed. See: kubectl logs {POD}.",
    ),
    "it is new": (pod(server=waiting("ContainerCreating")), "it is starting."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_pod_that_is_not_ready_says_which_it_is_and_why_and_what_to_do(api: Api, case: str) -> None:
    failing, why = CASES[case]
    gone = pod(PLACED, {"type": "Ready", "status": "True"}, deletionTimestamp="2026-01-01T00:00:00Z")
    api.pods = [gone, failing]
    assert api.why() == f"Pod {POD} is not ready: {why}"


def test_a_volume_that_is_not_bound_is_reported_with_the_message_of_its_claim(api: Api) -> None:
    message = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    api.pods = [pod({"type": "PodScheduled", "status": "False", "message": message})]
    api.events = [event("ProvisioningFailed", 'storageclass "x" not found', "another")]
    remedy = (
        "Set objectStore.bundled.persistence.storageClass or .existingClaim to one that can be used, or .enabled=false."
    )
    assert api.why() == f"Pod {POD} is not ready: {message} {remedy}"
    api.events += [
        event("FailedBinding", "no persistent volumes available", CLAIM, at="2026-01-01T00:00:00Z"),
        event("ProvisioningFailed", 'storageclass "fast" not found', CLAIM),
    ]
    assert f'PersistentVolumeClaim {CLAIM}: storageclass "fast" not found. {remedy}' in api.why()


def test_a_volume_that_cannot_be_mounted_is_reported_by_its_shortened_event(api: Api) -> None:
    api.pods = [pod(PLACED, server=waiting("ContainerCreating"))]
    api.events = [event("FailedMount", f"mount failed:\n{'x' * 900}"), event("Scheduled", "assigned")]
    assert api.why().startswith(f"Pod {POD} is not ready: FailedMount: mount failed: xxx")
    assert len(api.why()) < 700


def test_the_message_stays_the_same_while_a_pod_is_restarted_again_and_again(api: Api) -> None:
    reported = set()
    for restarts in range(3):
        states = [{"state": CRASHED}, waiting("CrashLoopBackOff", f"back-off {10 << restarts}s", **CRASHED)]
        for state in states:
            api.pods = [pod(PLACED, init=state | {"restartCount": restarts})]
            reported.add(api.why())
    assert len(reported) == 1


@pytest.mark.parametrize(
    ("explain", "expected"),
    [
        (
            lambda: "Pod store-1 is not ready: no room.",
            "Pod store-1 is not ready: no room. Until it is, s3://bucket cannot be used.",
        ),
        (lambda: "", "s3://bucket cannot be reached"),
    ],
)
def test_a_store_that_cannot_be_reached_is_reported_with_the_message_of_its_pod(
    monkeypatch: pytest.MonkeyPatch, explain: Callable[[], str], expected: str
) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "x"}
    for name, value in (credentials | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("surogate_bench_orchestrator.controller.sweep.store_connection._PATIENCE", timedelta(seconds=1))
    connection = StoreConnection(StoreSettings(url="s3://bucket"), explain)
    assert not connection.check()
    assert connection.failure is not None
    assert connection.failure.message.startswith(expected)
    assert ("Check its endpoint" in connection.failure.message) == (not explain())
    first = connection.failure
    assert not connection.check()
    assert connection.failure == first  # though the request and its seconds are others
