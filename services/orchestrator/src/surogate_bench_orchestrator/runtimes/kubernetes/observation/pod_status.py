"""Interprets the status of a pod; pure. Sources: Kubernetes API reference of PodStatus; the scheduler's messages."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from surogate_bench.contract import (
    COMMAND_ASKS_AGAIN,
    EXITED,
    KILLED,
    command_exited,
    command_killed,
    command_not_started,
)
from surogate_bench.errors import ExitCode, ForeignTrainerError, TransientError, printable, with_output
from surogate_bench.processes.logs import redact
from surogate_bench.processes.progress import Termination
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import COMMAND, CONTAINER, CONTAINERS

UNSCHEDULABLE = "Unschedulable"
OOM_KILLED = "OOMKilled"
VOLUME_NOT_BOUND = "VolumeNotBound"
IMAGE_ERRORS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CANNOT_START = IMAGE_ERRORS | {
    VOLUME_NOT_BOUND, "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}  # fmt: skip
MESSAGE_LENGTH = 1000
_OUTPUT_LENGTH = 700
"""Maximum length of the end of a log, which has the error."""
_SIGNALLED = 128
"""Exit codes above it are 128 + the number of a signal."""
_OUT_OF_MEMORY = Termination(reason=OOM_KILLED, message="exceeded its memory limit; raise it in the chart's values")


@dataclass(frozen=True, slots=True)
class BlockingCondition:
    """Why a pod does not run, and since when (seconds since 1970)."""

    reason: str
    message: str
    since: float


def blocking_condition(pod: Object) -> BlockingCondition | None:
    """Return why a pending pod does not start; None if nothing blocks it."""
    if phase_of(pod) not in {"Pending", ""}:
        return None
    placed = condition_of(pod, "PodScheduled")
    if placed.get("status") == "False":
        since = seconds(placed.get("lastTransitionTime"))
        message = str(placed.get("message") or "")
        volume = "persistentvolumeclaim" in message.lower()  # the scheduler has no separate reason for this
        return BlockingCondition(
            VOLUME_NOT_BOUND if volume else str(placed.get("reason") or UNSCHEDULABLE), message, since
        )
    states = ((status.get("state") or {}).get("waiting") or {} for status in _statuses(pod))
    waiting = next((state for state in states if state.get("reason") in CANNOT_START), None)
    if waiting is None:
        return None
    since = seconds(placed.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"])
    since = max(since, seconds(last_end_of(pod).get("finishedAt")))  # of the container before it
    return BlockingCondition(str(waiting["reason"]), str(waiting.get("message") or "")[:MESSAGE_LENGTH], since)


def no_node_can_run_it(message: str) -> bool:
    """Return whether, by the scheduler's message, no node could run the pod even if it were empty.

    The message has the number of nodes on which preemption would not help; if that is all of them, no node is suitable.
    """
    total = re.match(r"0/(\d+) nodes are available", message)
    preemption = re.search(r"preemption: 0/\d+ nodes are available: (.*)", message)
    if total is None or preemption is None:
        return False
    counts = re.findall(r"(\d+) Preemption is not helpful for scheduling", preemption.group(1))
    return sum(map(int, counts)) == int(total.group(1))


def has_no_suitable_node(pod: Object) -> bool:
    """Whether no node could run a pod, even if it were empty."""
    blocked = blocking_condition(pod)
    return blocked is not None and blocked.reason == UNSCHEDULABLE and no_node_can_run_it(blocked.message)


def termination_of(pod: Object) -> Termination | None:
    """Return why a pod failed, by the service's own termination message if there is one; None if it did not fail."""
    name, ended = _last_end(pod)
    if int(ended.get("exitCode") or 0):
        return explain_command(ended) if name == COMMAND else explain(ended)
    if phase_of(pod) != "Failed":
        return None
    status = pod["status"]
    return Termination(
        reason=str(status.get("reason") or "PodFailed"), message=str(status.get("message") or "")[:MESSAGE_LENGTH]
    )


def explain(ended: Object) -> Termination:
    """Return the reason and message of a terminated container state."""
    try:
        return Termination.model_validate_json(str(ended.get("message") or ""))
    except ValidationError:
        pass
    if ended.get("reason") == OOM_KILLED:
        return _OUT_OF_MEMORY
    code = int(ended.get("exitCode") or 0)
    reason, how = (
        (KILLED, f"killed by signal {code - _SIGNALLED}") if code > _SIGNALLED else (EXITED, f"exit code {code}")
    )
    output = end_of_output(ended)
    return Termination(reason=reason, message=f"{how}: {output}" if output else how)


def explain_command(ended: Object) -> Termination:
    """Return the reason and message of a foreign trainer's terminated command, as a single machine would.

    Its termination message is shown as text, whatever it is: the image is the user's.
    """
    if ended.get("reason") == OOM_KILLED:
        return _OUT_OF_MEMORY
    code, output = int(ended.get("exitCode") or 0), printable(redact(end_of_output(ended)))
    if ended.get("reason") == "StartError":
        error: Exception = ForeignTrainerError(command_not_started(output), None)
    elif code == ExitCode.TRANSIENT:
        error = TransientError(with_output(COMMAND_ASKS_AGAIN, output))
    elif code > _SIGNALLED:
        return Termination(reason=KILLED, message=with_output(command_killed(code - _SIGNALLED), output))
    else:
        error = ForeignTrainerError(command_exited(code), output)
    return Termination(reason=type(error).__name__, message=str(error))


def end_of_output(ended: Object) -> str:
    """Return the end of a terminated container's message, or with FallbackToLogsOnError of its log."""
    output = str(ended.get("message") or "").strip()
    return output if len(output) <= _OUTPUT_LENGTH else f"…{output[1 - _OUTPUT_LENGTH :]}"


def last_end_of(pod: Object) -> Object:
    """Return the last terminated state of the pod's containers; empty if none has ended."""
    return _last_end(pod)[1]


def _last_end(pod: Object) -> tuple[str, Object]:
    """Return the name and the terminated state of the container that ended last; empty if none has."""
    for status in reversed(_statuses(pod)):
        for state in (status.get("state"), status.get("lastState")):
            if ended := (state or {}).get("terminated"):
                return str(status["name"]), dict(ended)
    return "", {}


def failures_of(pod: Object) -> int:
    """Return how often the container of a restarting pod has ended."""
    running = "running" in (container_of(pod).get("state") or {})
    return restarts_of(pod) + (0 if running or not last_end_of(pod) else 1)


def restarts_of(pod: Object) -> int:
    """Return how often the container was restarted."""
    return int(container_of(pod).get("restartCount") or 0)


def container_of(pod: Object) -> Object:
    """Return the status of the task's container; empty while there is none."""
    statuses: list[Object] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((status for status in statuses if status["name"] == CONTAINER), {})


def _statuses(pod: Object) -> list[Object]:
    """Return the statuses of the task's containers in the order in which they run, as far as they are known."""
    status = pod.get("status") or {}
    listed = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return sorted((each for each in listed if each["name"] in CONTAINERS), key=lambda s: CONTAINERS.index(s["name"]))


def running_container(pod: Object) -> str:
    """Return the name of the task's container that runs; empty if none does."""
    return next((str(each["name"]) for each in _statuses(pod) if "running" in (each.get("state") or {})), "")


def containers_with_logs(pod: Object) -> tuple[str, ...]:
    """Return the names of the task's containers that have started, in their order; the main one if none has."""
    begun = (each for each in _statuses(pod) if (each.get("state") or {}).keys() & {"running", "terminated"})
    return tuple(str(each["name"]) for each in begun) or (CONTAINER,)


def command_since(pod: Object) -> float | None:
    """Return since when the command of a foreign trainer runs, seconds since 1970; None if it does not."""
    status = next((each for each in _statuses(pod) if each["name"] == COMMAND), {})
    running = (status.get("state") or {}).get("running")
    return seconds(running.get("startedAt")) if running else None


def phase_of(pod: Object) -> str:
    """Return the pod's phase."""
    return str((pod.get("status") or {}).get("phase") or "")


def has_ended(pod: Object) -> bool:
    """Whether the pod has ended for good."""
    return phase_of(pod) in {"Succeeded", "Failed"}


def is_ready(pod: Object) -> bool:
    """Whether its readiness probe succeeds."""
    return condition_of(pod, "Ready").get("status") == "True"


def ready_pod(pods: Iterable[Object]) -> Object | None:
    """Return the pod that is ready; None if none is."""
    return next((pod for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]), None)


def placed_since(pod: Object) -> float | None:
    """Return when the pod was placed on a node, seconds since 1970; None if it was not."""
    placed = condition_of(pod, "PodScheduled")
    return seconds(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None


def slot_held_until(pod: Object, now: float) -> float:
    """Return until when the pod held the resources of a node, seconds since 1970; 0 if it was never placed."""
    if placed_since(pod) is None:
        return 0.0
    return seconds(last_end_of(pod).get("finishedAt")) if has_ended(pod) else now


def starting_since(pod: Object) -> float | None:
    """Return since when a server's pod has been starting, seconds since 1970; None while its container does not run."""
    running = (container_of(pod).get("state") or {}).get("running") or {}
    if not running:
        return None
    return max(seconds(running.get("startedAt")), seconds(condition_of(pod, "Ready").get("lastTransitionTime")))


def age_key(item: Object) -> tuple[str, str]:
    """Return a sort key: oldest first."""
    return item["metadata"]["creationTimestamp"], item["metadata"]["name"]


def seconds(stamp: str | None) -> float:
    """Return an API timestamp as seconds since 1970; 0 for None."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() if stamp else 0.0


def condition_of(item: Object, kind: str) -> Object:
    """Return the condition of a type; empty if it is not set."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return dict(next((each for each in conditions if each["type"] == kind), {}))
