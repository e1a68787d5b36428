"""What API objects say of a task: pure, from a Job or Deployment and its pods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from surogate_bench.contract import NO_CAPABLE_NODE
from surogate_bench.errors import ExitCode
from surogate_bench.progress import Progress, Termination
from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.labels import FAILED, READY_RESTARTS
from surogate_bench_orchestrator.adapters.kubernetes.manifests import MAX_ATTEMPTS, SLOTS, TIMEOUT
from surogate_bench_orchestrator.adapters.kubernetes.pod_status import (
    CANNOT_START,
    MESSAGE_LENGTH,
    UNSCHEDULABLE,
    VOLUME_NOT_BOUND,
    Trouble,
    age_key,
    explain,
    failures_of,
    has_ended,
    is_ready,
    last_end_of,
    no_node_can_run_it,
    phase_of,
    placed_since,
    pod_trouble,
    restarts_of,
    seconds,
    starting_since,
    termination_of,
)
from surogate_bench_orchestrator.domain.tasks import Observation, Phase

_QUEUED = "Queued"
_WITHOUT_ROOM = frozenset({UNSCHEDULABLE, "SchedulingGated", "FailedCreate", _QUEUED})
"""Troubles of a task that holds nothing yet: no node, Kueue's or a namespace's quota."""

_FINAL_CODES = frozenset({ExitCode.BAD_INPUT, ExitCode.UNSUPPORTED, ExitCode.PERMANENT})


@dataclass(frozen=True, slots=True)
class Limits:
    """How long what may be waited for, seconds."""

    unschedulable_s: float
    start_s: float
    placement_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the caches hold about one task at one moment."""

    item: Object
    """The Job or Deployment."""
    pods: Sequence[Object]
    events: Sequence[Object] = ()
    """Events that say why it has no pods, or why claims of volumes are not met."""
    progress: Progress | None = None
    """What its running pod said last."""
    now: float
    """Seconds since 1970."""
    held_until: float = 0.0
    """When a task of the sweep last held a slot, as far as is known, seconds since 1970: a wait for room counts from
    then."""
    hopeless_since: float = 0.0
    """Since when no node can run its pod, as far as is known, seconds since 1970."""
    limits: Limits

    @property
    def elapsed_s(self) -> float:
        """Since submission."""
        return self.now - seconds(self.item["metadata"]["creationTimestamp"])

    @property
    def alive(self) -> list[Object]:
        """Pods that are not being deleted, oldest first."""
        return sorted((pod for pod in self.pods if "deletionTimestamp" not in pod["metadata"]), key=age_key)

    def number(self, annotation: str) -> float:
        """A number that the object was submitted with."""
        return float(annotations_of(self.item).get(annotation, "inf"))

    def failed(self, why: Termination, *, attempt: int) -> Observation:
        """The task as failed."""
        return Observation(
            phase=Phase.FAILED,
            attempt=max(1, attempt),
            reason=why.reason,
            message=why.message,
            elapsed_s=self.elapsed_s,
        )

    def waiting(
        self, attempt: int, pod: Object | None, trouble: Trouble | None, earlier: Termination | None
    ) -> Observation:
        """The task as pending, with what is in the way of its pod or why the attempt before failed."""
        told = Termination(reason=trouble.reason, message=trouble.message) if trouble else earlier
        return Observation(
            phase=Phase.PENDING,
            attempt=attempt,
            reason=told.reason if told else "",
            message=told.message if told else "",
            elapsed_s=self.elapsed_s,
            queued=pod is None or placed_since(pod) is None,
            unplaced=trouble is not None and trouble.reason in _WITHOUT_ROOM,
        )


_POD_DELETED = Termination(reason="PodDeleted", message="its pod was deleted, preempted or lost with its node")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A task as seen, and, where it has to be given up now, why."""

    seen: Observation
    give_up: Termination | None = None


def observe_job(seen: Seen) -> Verdict:
    """Look at a Job."""
    status = seen.item.get("status") or {}
    pods = sorted(seen.pods, key=age_key)
    failed = int(status.get("failed") or 0)
    conditions = {each["type"]: each for each in status.get("conditions") or () if each["status"] == "True"}
    if "Complete" in conditions:
        took = seconds(conditions["Complete"].get("lastTransitionTime")) - (seen.now - seen.elapsed_s)
        return Verdict(Observation(phase=Phase.SUCCEEDED, attempt=failed + 1, elapsed_s=took))
    why = given_up(seen.item)
    if why is None and "Failed" in conditions:
        why = _why_failed(conditions["Failed"], pods, seen)
    if why is not None:
        return Verdict(seen.failed(why, attempt=failed))
    current = next((pod for pod in reversed(seen.alive) if not has_ended(pod)), None)
    attempt = failed + (1 if current else 0)
    trouble = _trouble_of(current, seen) if current else _without_pod(seen)
    begun = [since for pod in pods if (since := placed_since(pod)) is not None]
    if why := _time_to_give_up(seen, trouble, min(begun, default=None), "had not ended"):
        return Verdict(seen.failed(why, attempt=attempt), why)
    earlier = next((why for pod in reversed(pods) if has_ended(pod) and (why := termination_of(pod))), None)
    if earlier is None and failed:
        earlier = _POD_DELETED  # a Job keeps failed pods, to be looked at
    waiting = seen.waiting(attempt, current, trouble, earlier)
    return Verdict(_running(waiting, seen.progress) if current and phase_of(current) == "Running" else waiting)


def observe_server(seen: Seen) -> Verdict:
    """Look at a Deployment of one pod. It is RUNNING while that is ready."""
    pod = seen.alive[-1] if seen.alive else None
    failures = failures_in_a_row(seen.item, pod)
    if why := given_up(seen.item):
        return Verdict(seen.failed(why, attempt=failures))
    if pod is None:
        return Verdict(seen.waiting(0, None, _without_pod(seen), None))
    ended = last_end_of(pod)
    earlier = explain(ended) if ended else None
    trouble = _trouble_of(pod, seen)
    waiting = seen.waiting(restarts_of(pod) + 1, pod, trouble, earlier)
    if is_ready(pod):
        return Verdict(_running(waiting, seen.progress))
    hopeless = ended.get("exitCode") in _FINAL_CODES or failures >= seen.number(MAX_ATTEMPTS)
    why = earlier if hopeless else _time_to_give_up(seen, trouble, starting_since(pod), "was not ready")
    return Verdict(seen.failed(why, attempt=failures), why) if why else Verdict(waiting)


def annotations_of(item: Object) -> dict[str, str]:
    """Annotations of an object."""
    return item["metadata"].get("annotations") or {}


def slots_of(item: Object) -> int:
    """Slots that a Job or Deployment was submitted with."""
    return int(annotations_of(item).get(SLOTS, "0"))


def given_up(item: Object) -> Termination | None:
    """Why the controller gave a task up, where it has."""
    raw = annotations_of(item).get(FAILED)
    return Termination.model_validate_json(raw) if raw else None


def ready_mark(pod: Object) -> str:
    """Value of the annotation that remembers that a pod was ready, and after how many restarts."""
    return f"{pod['metadata']['uid']}/{restarts_of(pod)}"


def failures_in_a_row(deployment: Object, pod: Object | None) -> int:
    """Attempts of a server that failed since it was last ready."""
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


def _time_to_give_up(seen: Seen, trouble: Trouble | None, begun: float | None, late: str) -> Termination | None:
    if trouble is not None and trouble.reason == UNSCHEDULABLE:
        hopeless_s = seen.now - max(trouble.since, seen.hopeless_since)
        if hopeless_s > seen.limits.unschedulable_s and no_node_can_run_it(trouble.message):
            message = f"no node could run it for {seen.limits.unschedulable_s:g} s: {trouble.message}"
            return Termination(reason=NO_CAPABLE_NODE, message=message[:MESSAGE_LENGTH])
        if seen.now - max(trouble.since, seen.held_until) > seen.limits.placement_s:
            message = f"no node had room for {seen.limits.placement_s:g} s: {trouble.message}"
            return Termination(reason="DeadlineExceeded", message=message[:MESSAGE_LENGTH])
    if trouble is not None and trouble.reason in CANNOT_START and seen.now - trouble.since > seen.limits.start_s:
        return Termination(reason=trouble.reason, message=trouble.message)
    if begun is not None and seen.now - begun > seen.number(TIMEOUT):
        return Termination(reason="DeadlineExceeded", message=f"{late} after {seen.number(TIMEOUT):g} s")
    return None


def _trouble_of(pod: Object, seen: Seen) -> Trouble | None:
    """A pod's trouble; of a volume with what was said of its claim, which the scheduler does not know."""
    trouble = pod_trouble(pod)
    if trouble is None or trouble.reason != VOLUME_NOT_BOUND or not seen.events:
        return trouble
    return replace(trouble, message=f"{trouble.message} {told_of_claim(seen.events)}"[:MESSAGE_LENGTH])


def told_of_claim(events: Sequence[Object]) -> str:
    """What the newest of these events says of the claim that it is about."""
    last = max(events, key=event_time)
    return f"PersistentVolumeClaim {last['involvedObject'].get('name')}: {last.get('message')}"


def _without_pod(seen: Seen) -> Trouble | None:
    """Why a task has no pod: its Job is suspended, or the API refuses its pods."""
    if (seen.item.get("spec") or {}).get("suspend"):
        return Trouble(_QUEUED, "is suspended until Kueue admits it", seen.now)
    last = max(seen.events, key=event_time, default=None)
    return Trouble(str(last["reason"]), str(last.get("message"))[:MESSAGE_LENGTH], event_time(last)) if last else None


def _why_failed(condition: Object, pods: Sequence[Object], seen: Seen) -> Termination:
    if condition.get("reason") == "DeadlineExceeded":
        return Termination(reason="DeadlineExceeded", message=f"had not ended after {seen.number(TIMEOUT):g} s")
    told = next((why for pod in reversed(pods) if (why := termination_of(pod))), None)
    return told or Termination(reason=str(condition.get("reason")), message=str(condition.get("message") or ""))


def event_time(event: Object) -> float:
    """When it was seen last, seconds since 1970."""
    return seconds(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
