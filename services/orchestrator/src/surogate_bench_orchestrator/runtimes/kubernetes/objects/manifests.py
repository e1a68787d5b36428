"""The API objects of a task: a Job, or for a server a Deployment and its Service. Pure."""

from math import ceil

from surogate_bench.contract import SERVER_PORT, VLLM_PORT
from surogate_bench.errors import FINAL_EXIT_CODES, ExitCode
from surogate_bench.stages.requests import ForeignTrainRequest
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import (
    COMMAND,
    CONTAINER,
    DOMAIN,
    PREPARING,
    TASK,
    labels_of,
)
from surogate_bench_orchestrator.runtimes.kubernetes.objects.pods import pod_template
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings

TIMEOUT, MAX_ATTEMPTS, SLOTS = f"{DOMAIN}/timeout-s", f"{DOMAIN}/max-attempts", f"{DOMAIN}/slots"
"""Annotations with the parameters of the submitted task."""
COMMAND_TIMEOUT = f"{DOMAIN}/command-timeout-s"
"""Annotation of the Job of a foreign trainer: seconds that its command may take in one attempt."""

_CODES_TO_RETRY = [ExitCode.TRANSIENT, *range(129, 193)]
"""Exit codes of a foreign trainer after which it is retried: the code that asks for it, and 128 + a signal's number."""


def job_manifest(
    task: Task, settings: ClusterSettings, scheduling: SchedulingSpec, owner: Object | None = None
) -> Object:
    """Make the Job of a task that ends.

    Its own deadline is a safety net for when no controller is running, and includes the wait for a node that the other
    trainers of the sweep may hold one after the other; the runtime enforces the task's deadline, which starts when the
    first pod is placed.
    """
    template = pod_template(task, settings, scheduling)
    template["spec"]["restartPolicy"] = "Never"
    sweep = task.request.sweep
    rounds = len(sweep.trained) * len(sweep.seeds) if task.slots else 1
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(task, settings, owner, template),
        "spec": {
            "backoffLimit": task.max_attempts - 1,
            "activeDeadlineSeconds": ceil(rounds * task.timeout_s + settings.placement_timeout_s),
            "suspend": scheduling.queue_name is not None,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    *_failures_to_keep(task),
                ]
            },
            "template": template,
        },
    }


def _failures_to_keep(task: Task) -> list[Object]:
    """Return the rules by which a failure is final: our codes, and of a foreign trainer's command all but a few."""
    final = sorted(FINAL_EXIT_CODES)
    codes = [(CONTAINER, "In", final)]
    if isinstance(task.request, ForeignTrainRequest):
        codes += [(PREPARING, "In", final), (COMMAND, "NotIn", _CODES_TO_RETRY)]
    return [
        {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": operator, "values": [*values]}}
        for name, operator, values in codes
    ]


def deployment_manifest(
    task: Task, settings: ClusterSettings, scheduling: SchedulingSpec, owner: Object | None = None
) -> Object:
    """Make the Deployment of a server."""
    template = pod_template(task, settings, scheduling)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(task, settings, owner, template),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 0,
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": ceil(task.timeout_s + settings.placement_timeout_s),
            "selector": {"matchLabels": {TASK: task.name}},
            "template": template,
        },
    }


def service_manifest(task: Task, settings: ClusterSettings, owner: Object | None = None) -> Object:
    """Make the Service of a server; pods that are not ready stay reachable, as clients wait by polling."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(task, settings, owner),
        "spec": {
            "selector": {TASK: task.name},
            "publishNotReadyAddresses": True,
            "ports": [
                {"name": "control", "port": SERVER_PORT, "targetPort": "control"},
                {"name": "vllm", "port": VLLM_PORT, "targetPort": "vllm"},
            ],
        },
    }


def _metadata(task: Task, settings: ClusterSettings, owner: Object | None, template: Object | None = None) -> Object:
    labels = template["metadata"]["labels"] if template else labels_of(task, settings.instance)
    return {
        "name": task.name,
        "namespace": settings.namespace,
        "labels": labels,
        "annotations": {
            TIMEOUT: f"{task.timeout_s:g}",
            MAX_ATTEMPTS: str(task.max_attempts),
            SLOTS: str(task.slots),
            **_command_timeout(task),
        },
        **({"ownerReferences": [owner]} if owner else {}),
    }


def _command_timeout(task: Task) -> dict[str, str]:
    request = task.request
    if not isinstance(request, ForeignTrainRequest):
        return {}
    return {COMMAND_TIMEOUT: f"{request.sweep.trainer(request.trainer).timeout_s or request.sweep.train_timeout_s:g}"}
