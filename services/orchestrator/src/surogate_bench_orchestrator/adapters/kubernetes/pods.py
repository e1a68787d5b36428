"""The pod of a task, from the task and the installation's settings; pure."""

from surogate_bench.contract import (
    EVERY_ADDRESS,
    HEALTH_PATH,
    HUB_HOME_VARIABLE,
    HUB_OFFLINE_VARIABLE,
    HUB_TOKEN_VARIABLE,
    METRICS_PORT,
    METRICS_PORT_VARIABLE,
    READY_PATH,
    REQUEST_FILE,
    TERMINATION_LOG_VARIABLE,
    THREADS_VARIABLE,
    VLLM_API_KEY_VARIABLE,
    WORK_DIR_OPTION,
    Service,
)
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.engines import required_capability
from surogate_bench.requests import (
    CheckRequest,
    EvaluateRequest,
    ImportRequest,
    PrepareRequest,
    ServeRequest,
    TrainRequest,
)
from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.labels import CONTAINER, REQUEST, labels_of
from surogate_bench_orchestrator.adapters.kubernetes.settings import ClusterSettings, SecretKey, Workload
from surogate_bench_orchestrator.domain.tasks import Task, TaskRequest, under_of
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec

_USER = 10001
_REQUEST_FOLDER = "/etc/surogate-bench"
_WORK, _SCRATCH, _CACHE = "/work", "/tmp", "/cache"  # noqa: S108 - an emptyDir of the pod's own
_MAJOR, _MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
_QUEUE = "kueue.x-k8s.io/queue-name"


def workload_of(task: Task, settings: ClusterSettings) -> Workload:
    """Return the settings of a task's pods."""
    request = task.request
    if isinstance(request, PrepareRequest | ImportRequest):
        return settings.prepare
    if isinstance(request, TrainRequest):
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
    if isinstance(request, TrainRequest):
        trainers = len(request.sweep.recipes) * len(request.sweep.seeds)
        limit = slots(settings, scheduling) or trainers
        return request.model_copy(update={"side_by_side": min(limit, trainers)})
    return request


def slots(settings: ClusterSettings, scheduling: SchedulingSpec) -> int | None:
    """Return how many pods of a sweep may hold a GPU at once; None if only the scheduler limits them."""
    return scheduling.slots or settings.slots


def pod_template(task: Task, settings: ClusterSettings, scheduling: SchedulingSpec) -> Object:
    """Return the pod template of a task, without a restart policy."""
    workload = workload_of(task, settings)
    request = complete_request(task, settings, scheduling).model_dump_json(exclude_none=True)
    queue = {_QUEUE: scheduling.queue_name} if scheduling.queue_name else {}
    return {
        "metadata": {
            "labels": labels_of(task, settings.instance) | queue,
            "annotations": {**workload.annotations, REQUEST: request},
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
            "containers": [_container(task, settings, workload)],
            "volumes": _volumes(task, settings),
            **_placement(task, workload, scheduling),
        },
    }


def _container(task: Task, settings: ClusterSettings, workload: Workload) -> Object:
    gpus = {settings.gpu_resource: workload.gpus} if workload.gpus else {}
    container: Object = {
        "name": CONTAINER,
        "image": workload.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [f"{_REQUEST_FOLDER}/{REQUEST_FILE}", WORK_DIR_OPTION, _WORK],
        "terminationMessagePolicy": "FallbackToLogsOnError",  # a service that cannot start writes no message
        "env": _environment(task, settings, workload),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": {
            "requests": {**workload.resources.requests, **gpus},
            "limits": {**workload.resources.limits, **gpus},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "request", "mountPath": _REQUEST_FOLDER, "readOnly": True},
            {"name": "work", "mountPath": _WORK},
            {"name": "scratch", "mountPath": _SCRATCH},
            {"name": "cache", "mountPath": _CACHE},
        ],
    }
    if workload.command:
        container["command"] = list(workload.command)
    if settings.store.secret:
        container["envFrom"] = [{"secretRef": {"name": settings.store.secret}}]
    if isinstance(task.request, ServeRequest):
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - memory of the pod
        container["ports"] += [
            {"name": "control", "containerPort": task.request.port},
            {"name": "vllm", "containerPort": task.request.vllm_port},
        ]
        container |= _probes()
    return container


def _probes() -> Object:
    """Return the probes. Ready: vLLM lists all adapters. Live: the supervisor, which restarts vLLM, responds."""
    return {
        "readinessProbe": {"httpGet": {"path": READY_PATH, "port": "control"}, "periodSeconds": 2, "timeoutSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": HEALTH_PATH, "port": "control"},
            "initialDelaySeconds": 30,
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
    }


def _environment(task: Task, settings: ClusterSettings, workload: Workload) -> list[Object]:
    values = {
        "HOME": _SCRATCH,
        "TMPDIR": _SCRATCH,
        "USER": "bench",
        HUB_HOME_VARIABLE: f"{_CACHE}/huggingface",
        METRICS_PORT_VARIABLE: str(METRICS_PORT),
        TERMINATION_LOG_VARIABLE: "/dev/termination-log",
        **({} if settings.hub.enabled else {HUB_OFFLINE_VARIABLE: "1"}),
        **({THREADS_VARIABLE: str(workload.threads)} if workload.threads else {}),
        **settings.store.env,
        **workload.env,
    }
    variables = [{"name": name, "value": value} for name, value in values.items()]
    if settings.hub.token and _uses_hub(task):
        variables.append(_secret(HUB_TOKEN_VARIABLE, settings.hub.token))
    if settings.vllm_api_key and isinstance(task.request, ServeRequest | EvaluateRequest):
        variables.append(_secret(VLLM_API_KEY_VARIABLE, settings.vllm_api_key))
    return variables


def _uses_hub(task: Task) -> bool:
    """Whether a task downloads from the hub; an evaluator only if the lm-eval task keeps its own data."""
    if task.service is Service.EVALUATOR:
        return "data" in task.request.sweep.evaluation.keep_from_task
    return not isinstance(task.request, CheckRequest)


def _secret(variable: str, key: SecretKey) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}


def _volumes(task: Task, settings: ClusterSettings) -> list[Object]:
    request = {"path": REQUEST_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{REQUEST}']"}}
    claim = settings.hub.cache_claim if _uses_hub(task) else None
    volumes: list[Object] = [
        {"name": "request", "downwardAPI": {"items": [request]}},
        {"name": "work", "emptyDir": {}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "cache", **({"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}})},
    ]
    if isinstance(task.request, ServeRequest):
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
    needs = required_capability(recipe, task.request.sweep.engine)
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
