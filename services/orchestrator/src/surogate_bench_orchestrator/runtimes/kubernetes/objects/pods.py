"""The pod of a task, from the task and the installation's settings; pure."""

from surogate_bench.contract import EVERY_ADDRESS, REQUEST_FILE
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.engines import required_capability, serving_capability
from surogate_bench.stages.requests import (
    CheckRequest,
    EvaluateRequest,
    ForeignTrainRequest,
    ImportRequest,
    PrepareRequest,
    ServeRequest,
    TrainRequest,
)
from surogate_bench_orchestrator.domain.tasks import Task, TaskRequest, under_of
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.containers import (
    service_container,
    shares_memory,
    uses_hub,
)
from surogate_bench_orchestrator.runtimes.kubernetes.objects.foreign_pods import add_command, collecting
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import REQUEST, labels_of
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings, Workload

_USER = 10001
_MAJOR, _MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
_QUEUE = "kueue.x-k8s.io/queue-name"


def workload_of(task: Task, settings: ClusterSettings) -> Workload:
    """Return the settings of a task's pods; a trainer's has as many GPUs as its processes need, if it has any."""
    workload = _configured(task, settings)
    if not isinstance(task.request, TrainRequest) or not workload.gpus:
        return workload
    return workload.model_copy(update={"gpus": max(workload.gpus, task.slots)})


def _configured(task: Task, settings: ClusterSettings) -> Workload:
    request = task.request
    if isinstance(request, PrepareRequest | ImportRequest):
        return settings.prepare
    if isinstance(request, TrainRequest | ForeignTrainRequest):
        return settings.trainer
    if isinstance(request, CheckRequest):
        return settings.evaluator if request.subject == "task" else _server_checker(settings)
    return settings.model_server if isinstance(request, ServeRequest) else settings.evaluator


def _server_checker(settings: ClusterSettings) -> Workload:
    """Return the settings for checks in the model server's image: without a GPU, with the resources of preparation."""
    without = {"gpus": 0, "threads": None, "resources": settings.prepare.resources}
    return settings.model_server.model_copy(update=without)


def complete_request(task: Task, settings: ClusterSettings, scheduling: SchedulingSpec) -> TaskRequest:
    """Return the request with the fields that depend on the cluster."""
    request = task.request.model_copy(update={"threads": workload_of(task, settings).threads})
    if isinstance(request, ServeRequest):
        return request.model_copy(update={"host": EVERY_ADDRESS})  # in its own pod, behind a NetworkPolicy
    if isinstance(request, PrepareRequest):
        return request.model_copy(update={"in_images": bool(request.sweep.trainers)})
    if isinstance(request, TrainRequest | ForeignTrainRequest):
        trainers = len(request.sweep.trained) * len(request.sweep.seeds)
        limit = slots(settings, scheduling) or trainers * task.slots
        request = request.model_copy(update={"side_by_side": max(1, min(limit // max(1, task.slots), trainers))})
    return collecting(request) if isinstance(request, ForeignTrainRequest) else request


def slots(settings: ClusterSettings, scheduling: SchedulingSpec) -> int | None:
    """Return how many pods of a sweep may hold a GPU at once; None if only the scheduler limits them."""
    return scheduling.slots or settings.slots


def pod_template(task: Task, settings: ClusterSettings, scheduling: SchedulingSpec) -> Object:
    """Return the pod template of a task, without a restart policy."""
    workload = workload_of(task, settings)
    request = complete_request(task, settings, scheduling)
    queue = {_QUEUE: scheduling.queue_name} if scheduling.queue_name else {}
    template: Object = {
        "metadata": {
            "labels": labels_of(task, settings.instance) | queue,
            "annotations": {**workload.annotations, REQUEST: request.model_dump_json(exclude_none=True)},
        },
        "spec": {
            "serviceAccountName": settings.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": settings.termination_grace_s,
            "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",  # not recursively on a shared cache for every pod
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [service_container(task, settings, workload)],
            "volumes": _volumes(task, settings),
            **_placement(task, workload, scheduling),
        },
    }
    if isinstance(request, ForeignTrainRequest):
        add_command(template, task, request, settings)
    return template


def _volumes(task: Task, settings: ClusterSettings) -> list[Object]:
    request = {"path": REQUEST_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{REQUEST}']"}}
    claim = settings.hub.cache_claim if uses_hub(task) else None
    volumes: list[Object] = [
        {"name": "request", "downwardAPI": {"items": [request]}},
        {"name": "work", "emptyDir": {}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "cache", **({"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}})},
    ]
    if shares_memory(task):
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm_size}})
    return volumes


def _placement(task: Task, workload: Workload, scheduling: SchedulingSpec) -> Object:
    placement: Object = {
        "nodeSelector": scheduling.node_selector,
        "tolerations": [each.model_dump(exclude_none=True) for each in scheduling.tolerations or ()],
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name if workload.gpus else None,
        "affinity": _capability_affinity(task, scheduling) if workload.gpus else None,
    }
    return {name: value for name, value in placement.items() if value}


def _capability_affinity(task: Task, scheduling: SchedulingSpec) -> Object | None:
    """Return the affinity to nodes whose GPUs have the compute capability that the task's engine needs."""
    recipe = _computed_recipe(task)
    if recipe is None:
        return None
    capability = required_capability if isinstance(task.request, TrainRequest) else serving_capability
    needs = capability(recipe, task.request.sweep.engine)
    rule = scheduling.compute_capability or "preferred"
    if needs is None or rule == "ignored":
        return None
    terms = capability_terms(*needs)
    if rule == "required":
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    preferred = [{"weight": 100, "preference": term} for term in terms]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _computed_recipe(task: Task) -> Recipe | None:
    """Return the recipe whose products a task computes: a trainer, or a server of a base under a recipe."""
    request = task.request
    name = request.recipe if isinstance(request, TrainRequest) else under_of(task)
    return request.sweep.recipe(name) if name and not isinstance(request, EvaluateRequest) else None


def capability_terms(major: int, minor: int) -> list[Object]:
    """Return alternative node selector terms for GPUs of at least this compute capability."""
    newer = [{"key": _MAJOR, "operator": "Gt", "values": [str(major)]}]
    same = [{"key": _MAJOR, "operator": "In", "values": [str(major)]}]
    if minor:
        same.append({"key": _MINOR, "operator": "Gt", "values": [str(minor - 1)]})
    return [{"matchExpressions": newer}, {"matchExpressions": same}]
