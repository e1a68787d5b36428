"""What a pod's status says: pure. Sources: the Kubernetes API reference of Pod status; the scheduler's messages."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from surogate_bench.progress import Termination
from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.labels import CONTAINER

UNSCHEDULABLE = "Unschedulable"
VOLUME_NOT_BOUND = "VolumeNotBound"
IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CANNOT_START = IMAGE_TROUBLE | {
    VOLUME_NOT_BOUND, "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}  # fmt: skip
MESSAGE_LENGTH = 1000
_LAST_WORDS = 700
"""Characters of a log's end: the error itself comes last."""
_SIGNALLED = 128
"""Exit codes above it are 128 + the number of a signal."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod does not run, and since when (seconds since 1970)."""

    reason: str
    message: str
    since: float


def pod_trouble(pod: Object) -> Trouble | None:
    """Why a pod does not get to run; None where it does, or has nothing in its way."""
    if phase_of(pod) not in {"Pending", ""}:
        return None
    placed = condition_of(pod, "PodScheduled")
    if placed.get("status") == "False":
        since = seconds(placed.get("lastTransitionTime"))
        message = str(placed.get("message") or "")
        volume = "persistentvolumeclaim" in message.lower()  # the scheduler gives this no reason of its own
        return Trouble(VOLUME_NOT_BOUND if volume else str(placed.get("reason") or UNSCHEDULABLE), message, since)
    waiting = (container_of(pod).get("state") or {}).get("waiting") or {}
    if waiting.get("reason") not in CANNOT_START:
        return None
    since = seconds(placed.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])
    return Trouble(str(waiting["reason"]), str(waiting.get("message") or "")[:MESSAGE_LENGTH], since)


def no_node_can_run_it(message: str) -> bool:
    """Tell from the scheduler's words whether waiting is in vain.

    It says of how many nodes the removal of pods would not help; where that is all of them, the nodes do not suit.
    """
    total = re.match(r"0/(\d+) nodes are available", message)
    hopeless = re.search(r"preemption: 0/\d+ nodes are available: (.*)", message)
    if total is None or hopeless is None:
        return False
    counts = re.findall(r"(\d+) Preemption is not helpful for scheduling", hopeless.group(1))
    return sum(map(int, counts)) == int(total.group(1))


def is_hopeless(pod: Object) -> bool:
    """Whether no node can run a pod now, nor could if others made room."""
    trouble = pod_trouble(pod)
    return trouble is not None and trouble.reason == UNSCHEDULABLE and no_node_can_run_it(trouble.message)


def termination_of(pod: Object) -> Termination | None:
    """Why a pod ended, in the service's words where it left some; None where it did not fail."""
    ended = last_end_of(pod)
    if ended:
        return explain(ended) if int(ended.get("exitCode") or 0) else None
    if phase_of(pod) != "Failed":
        return None
    status = pod["status"]
    return Termination(
        reason=str(status.get("reason") or "PodFailed"), message=str(status.get("message") or "")[:MESSAGE_LENGTH]
    )


def explain(ended: Object) -> Termination:
    """Put a terminated container state into words."""
    try:
        return Termination.model_validate_json(str(ended.get("message") or ""))
    except ValidationError:
        pass
    if ended.get("reason") == "OOMKilled":
        return Termination(
            reason="OOMKilled", message="used more memory than its limit; raise it in the chart's values"
        )
    code = int(ended.get("exitCode") or 0)
    reason, how = (
        ("Killed", f"killed by signal {code - _SIGNALLED}") if code > _SIGNALLED else ("Exited", f"exit code {code}")
    )
    words = last_words_of(ended)
    return Termination(reason=reason, message=f"{how}: {words}" if words else how)


def last_words_of(ended: Object) -> str:
    """The end of what a terminated container said: its message, or with FallbackToLogsOnError its log."""
    words = str(ended.get("message") or "").strip()
    return words if len(words) <= _LAST_WORDS else f"…{words[1 - _LAST_WORDS :]}"


def last_end_of(pod: Object) -> Object:
    """How the container ended last; empty if it never did."""
    for state in (container_of(pod).get("state"), container_of(pod).get("lastState")):
        if ended := (state or {}).get("terminated"):
            return dict(ended)
    return {}


def failures_of(pod: Object) -> int:
    """Times that the container of a restarting pod has ended."""
    running = "running" in (container_of(pod).get("state") or {})
    return restarts_of(pod) + (0 if running or not last_end_of(pod) else 1)


def restarts_of(pod: Object) -> int:
    """Times that the container was started again."""
    return int(container_of(pod).get("restartCount") or 0)


def container_of(pod: Object) -> Object:
    """Status of the container that does the task; empty while there is none."""
    statuses: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((status for status in statuses if status["name"] == CONTAINER), {})


def phase_of(pod: Object) -> str:
    """The pod's phase."""
    return str((pod.get("status") or {}).get("phase") or "")


def has_ended(pod: Object) -> bool:
    """Whether nothing of it will run again."""
    return phase_of(pod) in {"Succeeded", "Failed"}


def is_ready(pod: Object) -> bool:
    """Whether its readiness probe succeeds."""
    return condition_of(pod, "Ready").get("status") == "True"


def ready_pod(pods: Iterable[Object]) -> Object | None:
    """The pod that is ready, if one is."""
    return next((pod for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]), None)


def placed_since(pod: Object) -> float | None:
    """When it got its node; None while it has none."""
    placed = condition_of(pod, "PodScheduled")
    return seconds(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None


def held_until(pod: Object, now: float) -> float:
    """Until when it held what its node gave it, seconds since 1970; 0 where it got no node."""
    if placed_since(pod) is None:
        return 0.0
    return seconds(last_end_of(pod).get("finishedAt")) if has_ended(pod) else now


def starting_since(pod: Object) -> float | None:
    """When a server's pod began to become ready; None while nothing of it runs."""
    running = (container_of(pod).get("state") or {}).get("running") or {}
    if not running:
        return None
    return max(seconds(running.get("startedAt")), seconds(condition_of(pod, "Ready").get("lastTransitionTime")))


def age_key(item: Object) -> tuple[str, str]:
    """Sorts the oldest first."""
    return item["metadata"]["creationTimestamp"], item["metadata"]["name"]


def seconds(stamp: str | None) -> float:
    """Seconds since 1970 of an API timestamp; 0 for none."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() if stamp else 0.0


def condition_of(item: Object, kind: str) -> Object:
    """A condition of an object by its type; empty if there is none."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return dict(next((each for each in conditions if each["type"] == kind), {}))
