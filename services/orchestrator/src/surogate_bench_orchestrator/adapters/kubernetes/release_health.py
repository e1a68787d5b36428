"""Why the pod of a part of the release is not ready, in words that name the pod, its own last words and a remedy: pure.

Nothing that changes while the trouble stays the same (restarts, seconds of a back-off) is part of the words: the
status and the events of every sweep repeat them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.observing import event_time
from surogate_bench_orchestrator.adapters.kubernetes.pod_status import (
    IMAGE_TROUBLE,
    age_key,
    condition_of,
    is_ready,
    last_words_of,
    phase_of,
)

_MOUNT_TROUBLE = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
"""Reasons of events that explain a pod whose containers wait without a word."""
_CLAIM_TROUBLE = frozenset({"ProvisioningFailed", "FailedBinding"})
_LONGEST = 600
"""Characters of what Kubernetes says; an event of ours has room for 900."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A Deployment of the chart as it is now."""

    deployment: Object
    pods: Sequence[Object] = ()
    events: Sequence[Object] = field(default=())
    """About its pods and the claims of their volumes."""
    values: str
    """The chart's values about it, for example ``objectStore.bundled``."""


def why_not_ready(part: Part) -> str:
    """Say why none of a part's pods is ready; empty if one is."""
    name = part.deployment["metadata"]["name"]
    alive = sorted((pod for pod in part.pods if "deletionTimestamp" not in pod["metadata"]), key=age_key)
    if any(is_ready(pod) for pod in alive):
        return ""
    if (part.deployment.get("spec") or {}).get("replicas") == 0:
        return f"Deployment {name} has 0 replicas. Scale it to 1."
    if not alive:
        refusal = condition_of(part.deployment, "ReplicaFailure").get("message") or "it is being made"
        return f"Deployment {name} has no pod: {_short(refusal)}."
    pod = alive[-1]
    why = _placement(pod, part) or _containers(pod, part.values) or _volumes(pod, part) or "it is being started."
    return f"Pod {pod['metadata']['name']} is not ready: {why}"


def claims_of(pod: Object) -> list[str]:
    """Names of the PersistentVolumeClaims that a pod uses."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return [str(each["persistentVolumeClaim"]["claimName"]) for each in volumes if "persistentVolumeClaim" in each]


def _placement(pod: Object, part: Part) -> str:
    """What the scheduler says, and of a volume what was said of its claim."""
    placed = condition_of(pod, "PodScheduled")
    if placed.get("status") != "False":
        return ""
    message = _short(str(placed.get("message") or placed.get("reason")))
    if "persistentvolumeclaim" not in message.lower():
        remedy = f"Make room on a node, or change {part.values}.nodeSelector, .tolerations or .resources."
        return f"no node takes it: {message}. {remedy}"
    told = _newest(part.events, _CLAIM_TROUBLE, claims_of(pod))
    about = f" PersistentVolumeClaim {told['involvedObject'].get('name')}: {_short(told['message'])}." if told else ""
    remedy = f"Set {part.values}.persistence.storageClass or .existingClaim to one that can be used, or .enabled=false."
    return f"{message}.{about} {remedy}"


def _containers(pod: Object, values: str) -> str:
    """What the first container that is in trouble says, in the order in which they are started."""
    status = pod.get("status") or {}
    for kind, statuses in (("init container", "initContainerStatuses"), ("container", "containerStatuses")):
        for container in status.get(statuses) or ():
            if why := _container(container, pod, values):
                return f"{kind} {container['name']} {why}"
    return ""


def _container(container: Object, pod: Object, values: str) -> str:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    if reason in IMAGE_TROUBLE:
        image = container.get("image") or "its image"
        error = message.rpartition("ErrImagePull: ")[2]
        remedy = f"Check {values}.image, images.registry, images.tag and images.pullSecrets."
        return f"has no image {image}: {_short(error)}. {remedy}"
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    if ended.get("exitCode"):
        return _ended(ended, pod["metadata"]["name"], container["name"], values)
    if message:
        return f"cannot be started: {reason}: {_short(message)}."
    if "running" in state and not container.get("ready") and phase_of(pod) == "Running":
        return f"runs, but its probe does not succeed. See: kubectl logs {pod['metadata']['name']}."
    return ""


def _ended(ended: Object, pod: str, container: str, values: str) -> str:
    if ended.get("reason") == "OOMKilled":
        return f"used more memory than its limit (OOMKilled). Raise {values}.resources.limits.memory."
    words = " ".join(last_words_of(ended).split()).rstrip(".")
    told = f": {words}." if words else f" without a word. See: kubectl logs {pod} -c {container} --previous."
    return f"ended with exit code {ended['exitCode']}{told}"


def _volumes(pod: Object, part: Part) -> str:
    event = _newest(part.events, _MOUNT_TROUBLE, [pod["metadata"]["name"]])
    return f"{event['reason']}: {_short(event['message'])}" if event else ""


def _newest(events: Iterable[Object], reasons: frozenset[str], names: Sequence[str]) -> Object | None:
    """The newest event with one of these reasons about an object of one of these names."""
    fitting = [
        event
        for event in events
        if event.get("reason") in reasons and event["involvedObject"].get("name") in names and event.get("message")
    ]
    return max(fitting, key=event_time, default=None)


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
