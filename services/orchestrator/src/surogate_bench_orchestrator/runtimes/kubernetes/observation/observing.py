"""Observes a task from its Job or Deployment, and its pods; pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from surogate_bench.contract import NO_CAPABLE_NODE, command_overdue
from surogate_bench.errors import FINAL_EXIT_CODES, ForeignTrainerError
from surogate_bench.processes.progress import Activity, Progress, Termination
from surogate_bench_orchestrator.domain.tasks import DEADLINE_EXCEEDED, Observation, Phase, overdue
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import COMMAND, FAILED, PREPARING, READY_RESTARTS
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import (
    COMMAND_TIMEOUT,
    MAX_ATTEMPTS,
    SLOTS,
    TIMEOUT,
)
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import (
    CANNOT_START,
    MESSAGE_LENGTH,
    UNSCHEDULABLE,
    VOLUME_NOT_BOUND,
    BlockingCondition,
    age_key,
    blocking_condition,
    command_since,
    explain,
    failures_of,
    has_ended,
    is_ready,
    last_end_of,
    no_node_can_run_it,
    phase_of,
    placed_since,
    restarts_of,
    running_container,
    seconds,
    starting_since,
    termination_of,
)

_QUEUED = "Queued"
_UNPLACED = frozenset({UNSCHEDULABLE, "SchedulingGated", "FailedCreate", _QUEUED})
"""Reasons of a task that holds no slot yet: no node, Kueue's quota, or that of the namespace."""

_PHASES = {PREPARING: Activity.PREPARING, COMMAND: Activity.TRAINING}
"""Progress of the containers that serve none, by name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a task may wait, seconds."""

    unschedulable_s: float
    start_s: float
    placement_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskObjects:
    """The cached API objects of one task."""

    item: Object
    """The Job or Deployment."""
    pods: Sequence[Object]
    events: Sequence[Object] = ()
    """Events about why it has no pods, or why its volume claims are not bound."""
    progress: Progress | None = None
    """Last progress of its running pod."""
    now: float
    """Seconds since 1970."""
    held_until: float = 0.0
    """When a task of the sweep last held a slot, seconds since 1970, 0 if unknown; start of the wait for
    resources."""
    no_node_since: float = 0.0
    """Time since which no node could run its pod, seconds since 1970; 0 if unknown."""
    limits: Limits

    @property
    def elapsed_s(self) -> float:
        """Seconds since submission."""
        return self.now - seconds(self.item["metadata"]["creationTimestamp"])

    @property
    def alive(self) -> list[Object]:
        """Return the pods that are not being deleted, oldest first."""
        return sorted((pod for pod in self.pods if "deletionTimestamp" not in pod["metadata"]), key=age_key)

    def number(self, annotation: str) -> float:
        """Return a number that the object was annotated with at submission."""
        return float(annotations_of(self.item).get(annotation, "inf"))

    def failed(self, failure: Termination, *, attempt: int) -> Observation:
        """Return the task as failed."""
        return Observation(
            phase=Phase.FAILED,
            attempt=max(1, attempt),
            reason=failure.reason,
            message=failure.message,
            elapsed_s=self.elapsed_s,
        )

    def waiting(
        self, attempt: int, pod: Object | None, blocked: BlockingCondition | None, earlier: Termination | None
    ) -> Observation:
        """Return the task as pending, with what blocks its pod, or else why the previous attempt failed."""
        failure = Termination(reason=blocked.reason, message=blocked.message) if blocked else earlier
        return Observation(
            phase=Phase.PENDING,
            attempt=attempt,
            reason=failure.reason if failure else "",
            message=failure.message if failure else "",
            elapsed_s=self.elapsed_s,
            queued=pod is None or placed_since(pod) is None,
            unplaced=blocked is not None and blocked.reason in _UNPLACED,
        )


_POD_DELETED = Termination(reason="PodDeleted", message="its pod was deleted, preempted or lost with its node")


@dataclass(frozen=True, slots=True)
class TaskState:
    """Observation of a task, and, if it has exceeded a limit and must be stopped, the reason."""

    observation: Observation
    exceeded: Termination | None = None


def observe_job(task: TaskObjects) -> TaskState:
    """Observe the task of a Job."""
    status = task.item.get("status") or {}
    pods = sorted(task.pods, key=age_key)
    failed = int(status.get("failed") or 0)
    conditions = {each["type"]: each for each in status.get("conditions") or () if each["status"] == "True"}
    if "Complete" in conditions:
        took = seconds(conditions["Complete"].get("lastTransitionTime")) - (task.now - task.elapsed_s)
        return TaskState(Observation(phase=Phase.SUCCEEDED, attempt=failed + 1, elapsed_s=took))
    failure = failure_mark(task.item)
    if failure is None and "Failed" in conditions:
        failure = _failure_of_job(conditions["Failed"], pods, task)
    if failure is not None:
        return TaskState(task.failed(failure, attempt=failed))
    return _observe_active_job(task, pods, failed)


def _observe_active_job(task: TaskObjects, pods: Sequence[Object], failed: int) -> TaskState:
    current = next((pod for pod in reversed(task.alive) if not has_ended(pod)), None)
    attempt = failed + (1 if current else 0)
    blocked = _blocking_condition(current, task) if current else _why_without_pod(task)
    started = [since for pod in pods if (since := placed_since(pod)) is not None]
    exceeded = _exceeded_limit(task, blocked, min(started, default=None))
    if exceeded := exceeded or _exceeded_command(task, current):
        return TaskState(task.failed(exceeded, attempt=attempt), exceeded)
    earlier = next((end for pod in reversed(pods) if has_ended(pod) and (end := termination_of(pod))), None)
    if earlier is None and failed:
        earlier = _POD_DELETED  # a Job keeps its failed pods
    waiting = task.waiting(attempt, current, blocked, earlier)
    return TaskState(_running(waiting, _progress(task, current)) if current and _is_running(current) else waiting)


def _is_running(pod: Object) -> bool:
    """Whether a pod runs, or a container of ours or of the user's before its main one: its phase is Pending then."""
    return phase_of(pod) == "Running" or bool(running_container(pod))


def _progress(task: TaskObjects, pod: Object) -> Progress | None:
    phase = _PHASES.get(running_container(pod))
    return Progress(phase=phase) if phase else task.progress


def _exceeded_command(task: TaskObjects, pod: Object | None) -> Termination | None:
    """Return the failure of a foreign trainer whose command has passed its deadline, which is that of an attempt."""
    since, limit = command_since(pod) if pod else None, task.number(COMMAND_TIMEOUT)
    if since is None or task.now - since <= limit:
        return None
    return Termination(reason=ForeignTrainerError.__name__, message=command_overdue(limit))


def observe_server(task: TaskObjects) -> TaskState:
    """Observe the task of a Deployment with one pod. It is RUNNING while that pod is ready."""
    pod = task.alive[-1] if task.alive else None
    failures = failures_in_a_row(task.item, pod)
    if failure := failure_mark(task.item):
        return TaskState(task.failed(failure, attempt=failures))
    if pod is None:
        return TaskState(task.waiting(0, None, _why_without_pod(task), None))
    ended = last_end_of(pod)
    earlier = explain(ended) if ended else None
    blocked = _blocking_condition(pod, task)
    waiting = task.waiting(restarts_of(pod) + 1, pod, blocked, earlier)
    if is_ready(pod):
        return TaskState(_running(waiting, task.progress))
    no_retry = ended.get("exitCode") in FINAL_EXIT_CODES or failures >= task.number(MAX_ATTEMPTS)
    exceeded = earlier if no_retry else _exceeded_limit(task, blocked, starting_since(pod), is_server=True)
    return TaskState(task.failed(exceeded, attempt=failures), exceeded) if exceeded else TaskState(waiting)


def annotations_of(item: Object) -> dict[str, str]:
    """Return the annotations of an object."""
    return item["metadata"].get("annotations") or {}


def slots_of(item: Object) -> int:
    """Return the number of slots that a Job or Deployment was submitted with."""
    return int(annotations_of(item).get(SLOTS, "0"))


def failure_mark(item: Object) -> Termination | None:
    """Return why the controller stopped a task, from its annotation; None if it did not."""
    raw = annotations_of(item).get(FAILED)
    return Termination.model_validate_json(raw) if raw else None


def ready_mark(pod: Object) -> str:
    """Return the value of the annotation that records that a pod was ready, and after how many restarts."""
    return f"{pod['metadata']['uid']}/{restarts_of(pod)}"


def failures_in_a_row(deployment: Object, pod: Object | None) -> int:
    """Return how many attempts of a server have failed since it was last ready."""
    if pod is None:
        return 0
    uid, _, restarts = annotations_of(deployment).get(READY_RESTARTS, "").partition("/")
    before = int(restarts) if uid == pod["metadata"]["uid"] else 0
    return failures_of(pod) - before


def _running(waiting: Observation, progress: Progress | None) -> Observation:
    return Observation(
        phase=Phase.RUNNING,
        attempt=waiting.attempt,
        reason=waiting.reason,
        message=waiting.message,
        progress=progress,
        elapsed_s=waiting.elapsed_s,
    )


def _exceeded_limit(
    task: TaskObjects, blocked: BlockingCondition | None, started: float | None, *, is_server: bool = False
) -> Termination | None:
    if blocked is not None and blocked.reason == UNSCHEDULABLE and (exceeded := _exceeded_placement(task, blocked)):
        return exceeded
    if blocked is not None and blocked.reason in CANNOT_START and task.now - blocked.since > task.limits.start_s:
        return Termination(reason=blocked.reason, message=blocked.message)
    if started is not None and task.now - started > task.number(TIMEOUT):
        return _overdue(task, is_server=is_server)
    return None


def _overdue(task: TaskObjects, *, is_server: bool) -> Termination:
    return Termination(reason=DEADLINE_EXCEEDED, message=overdue(task.number(TIMEOUT), is_server=is_server))


def _exceeded_placement(task: TaskObjects, blocked: BlockingCondition) -> Termination | None:
    without_node_s = task.now - max(blocked.since, task.no_node_since)
    if without_node_s > task.limits.unschedulable_s and no_node_can_run_it(blocked.message):
        message = f"no node could run it for {task.limits.unschedulable_s:g} s: {blocked.message}"
        return Termination(reason=NO_CAPABLE_NODE, message=message[:MESSAGE_LENGTH])
    if task.now - max(blocked.since, task.held_until) > task.limits.placement_s:
        message = f"no node had enough resources for {task.limits.placement_s:g} s: {blocked.message}"
        return Termination(reason=DEADLINE_EXCEEDED, message=message[:MESSAGE_LENGTH])
    return None


def _blocking_condition(pod: Object, task: TaskObjects) -> BlockingCondition | None:
    """Return what blocks a pod; for a volume with the Event about its claim, which the scheduler does not include."""
    blocked = blocking_condition(pod)
    if blocked is None or blocked.reason != VOLUME_NOT_BOUND or not task.events:
        return blocked
    return replace(blocked, message=f"{blocked.message} {describe_claim(task.events)}"[:MESSAGE_LENGTH])


def describe_claim(events: Sequence[Object]) -> str:
    """Return the message of the newest of these Events, with the claim that it is about."""
    last = max(events, key=event_time)
    return f"PersistentVolumeClaim {last['involvedObject'].get('name')}: {last.get('message')}"


def _why_without_pod(task: TaskObjects) -> BlockingCondition | None:
    """Return why a task has no pod: its Job is suspended, or the API refuses its pods."""
    if (task.item.get("spec") or {}).get("suspend"):
        return BlockingCondition(_QUEUED, "is suspended until Kueue admits it", task.now)
    last = max(task.events, key=event_time, default=None)
    if last is None:
        return None
    return BlockingCondition(str(last["reason"]), str(last.get("message"))[:MESSAGE_LENGTH], event_time(last))


def _failure_of_job(condition: Object, pods: Sequence[Object], task: TaskObjects) -> Termination:
    if condition.get("reason") == DEADLINE_EXCEEDED:
        return _overdue(task, is_server=False)
    failure = next((end for pod in reversed(pods) if (end := termination_of(pod))), None)
    return failure or Termination(reason=str(condition.get("reason")), message=str(condition.get("message") or ""))


def event_time(event: Object) -> float:
    """Return when an Event was last recorded, seconds since 1970."""
    return seconds(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
