"""The API objects of a task: a Job, or for a server a Deployment and its Service. Pure."""

from math import ceil

from surogate_bench.contract import SERVER_PORT, VLLM_PORT
from surogate_bench.errors import FINAL_EXIT_CODES
from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.labels import CONTAINER, DOMAIN, TASK, labels_of
from surogate_bench_orchestrator.adapters.kubernetes.pods import pod_template
from surogate_bench_orchestrator.adapters.kubernetes.settings import ClusterSettings
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec

TIMEOUT, MAX_ATTEMPTS, SLOTS = f"{DOMAIN}/timeout-s", f"{DOMAIN}/max-attempts", f"{DOMAIN}/slots"
"""Annotations with the parameters of the submitted task."""


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
    rounds = len(sweep.recipes) * len(sweep.seeds) if task.slots else 1
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
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": sorted(FINAL_EXIT_CODES),
                        },
                    },
                ]
            },
            "template": template,
        },
    }


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
        },
        **({"ownerReferences": [owner]} if owner else {}),
    }
