"""Explains why a component of the release is not ready: names the pod, the end of its output and a remedy; pure.

The message has nothing that changes while the cause stays the same (restarts, back-off times): it is part of the status
and the Events of every sweep.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.observation.observing import event_time
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import (
    IMAGE_ERRORS,
    OOM_KILLED,
    age_key,
    condition_of,
    end_of_output,
    is_ready,
    phase_of,
)

_MOUNT_REASONS = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
"""Reasons of Events about a pod whose containers wait without a message."""
_CLAIM_REASONS = frozenset({"ProvisioningFailed", "FailedBinding"})
_LONGEST = 600
"""Characters of a message from Kubernetes; an Event of ours has room for 900."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A Deployment of the chart, and its pods."""

    deployment: Object
    pods: Sequence[Object] = ()
    events: Sequence[Object] = field(default=())
    """Events about its pods and their volume claims."""
    values: str
    """Path of its values in the chart, for example ``objectStore.bundled``."""


def why_not_ready(component: Component) -> str:
    """Return why none of a component's pods is ready; empty if one is."""
    name = component.deployment["metadata"]["name"]
    alive = sorted((pod for pod in component.pods if "deletionTimestamp" not in pod["metadata"]), key=age_key)
    if any(is_ready(pod) for pod in alive):
        return ""
    if (component.deployment.get("spec") or {}).get("replicas") == 0:
        return f"Deployment {name} has 0 replicas. Scale it to 1."
    if not alive:
        refusal = condition_of(component.deployment, "ReplicaFailure").get("message") or "it is being created"
        return f"Deployment {name} has no pod: {_short(refusal)}."
    pod = alive[-1]
    why = (
        _placement(pod, component)
        or _containers(pod, component.values)
        or _volumes(pod, component)
        or "it is starting."
    )
    return f"Pod {pod['metadata']['name']} is not ready: {why}"


def claims_of(pod: Object) -> list[str]:
    """Return the names of the PersistentVolumeClaims that a pod uses."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return [str(each["persistentVolumeClaim"]["claimName"]) for each in volumes if "persistentVolumeClaim" in each]


def _placement(pod: Object, component: Component) -> str:
    """Return the scheduler's message, and for a volume also the Event about its claim."""
    placed = condition_of(pod, "PodScheduled")
    if placed.get("status") != "False":
        return ""
    message = _short(str(placed.get("message") or placed.get("reason")))
    if "persistentvolumeclaim" not in message.lower():
        remedy = f"Make room on a node, or change {component.values}.nodeSelector, .tolerations or .resources."
        return f"no node accepts it: {message}. {remedy}"
    event = _newest(component.events, _CLAIM_REASONS, claims_of(pod))
    about = (
        f" PersistentVolumeClaim {event['involvedObject'].get('name')}: {_short(event['message'])}." if event else ""
    )
    remedy = (
        f"Set {component.values}.persistence.storageClass or .existingClaim to one that can be used, or .enabled=false."
    )
    return f"{message}.{about} {remedy}"


def _containers(pod: Object, values: str) -> str:
    """Return why the first container that is not ready is not, in the order in which containers are started."""
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
    if reason in IMAGE_ERRORS:
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
    if ended.get("reason") == OOM_KILLED:
        return f"used more memory than its limit (OOMKilled). Raise {values}.resources.limits.memory."
    output = " ".join(end_of_output(ended).split()).rstrip(".")
    shown = f": {output}." if output else f" and no message. See: kubectl logs {pod} -c {container} --previous."
    return f"ended with exit code {ended['exitCode']}{shown}"


def _volumes(pod: Object, component: Component) -> str:
    event = _newest(component.events, _MOUNT_REASONS, [pod["metadata"]["name"]])
    return f"{event['reason']}: {_short(event['message'])}" if event else ""


def _newest(events: Iterable[Object], reasons: frozenset[str], names: Sequence[str]) -> Object | None:
    """Return the newest Event with one of these reasons about an object with one of these names."""
    matching = [
        event
        for event in events
        if event.get("reason") in reasons and event["involvedObject"].get("name") in names and event.get("message")
    ]
    return max(matching, key=event_time, default=None)


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
