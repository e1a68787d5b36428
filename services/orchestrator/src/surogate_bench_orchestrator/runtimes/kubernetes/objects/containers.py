"""The container of a service of ours, and what all containers of task pods have in common; pure."""

from surogate_bench.contract import (
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
from surogate_bench.stages.requests import CheckRequest, EvaluateRequest, ServeRequest, TrainRequest
from surogate_bench_orchestrator.domain.tasks import Task, further_of
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import CONTAINER
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings, SecretKey, Workload

SCRATCH = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
USER_NAME = "bench"
"""Some libraries need one, and the user's number has none."""
LAST_LINES = "FallbackToLogsOnError"
"""The termination message is the end of the log where a container wrote none."""
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security context of every container."""
_REQUEST_FOLDER = "/etc/surogate-bench"
_WORK, _CACHE = "/work", "/cache"


def service_container(
    task: Task, settings: ClusterSettings, workload: Workload, *, name: str = CONTAINER, file: str = REQUEST_FILE
) -> Object:
    """Return the container of a service of ours.

    Args:
        task: Its task.
        settings: Settings of the installation.
        workload: Image, resources and environment.
        name: Name of the container.
        file: Name of the request's file.
    """
    container: Object = {
        "name": name,
        "image": workload.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": [f"{_REQUEST_FOLDER}/{file}", WORK_DIR_OPTION, _WORK],
        "terminationMessagePolicy": LAST_LINES,  # a service that cannot start writes no message
        "env": _environment(task, settings, workload),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "resources": resources_of(workload, settings),
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": "request", "mountPath": _REQUEST_FOLDER, "readOnly": True},
            {"name": "work", "mountPath": _WORK},
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "cache", "mountPath": _CACHE},
        ],
    }
    if workload.command:
        container["command"] = list(workload.command)
    if settings.store.secret:
        container["envFrom"] = [{"secretRef": {"name": settings.store.secret}}]
    if shares_memory(task):
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - memory of the pod
    if isinstance(task.request, ServeRequest):
        container["ports"] += [
            {"name": "control", "containerPort": task.request.port},
            {"name": "vllm", "containerPort": task.request.vllm_port},
        ]
        container |= _probes()
    return container


def shares_memory(task: Task) -> bool:
    """Whether processes of a pod exchange tensors: those of vLLM, and those of a training run on several GPUs."""
    return isinstance(task.request, ServeRequest) or (isinstance(task.request, TrainRequest) and task.slots > 1)


def resources_of(workload: Workload, settings: ClusterSettings) -> Object:
    """Return the resources of a container, its GPUs included."""
    gpus = {settings.gpu_resource: workload.gpus} if workload.gpus else {}
    return {
        "requests": {**workload.resources.requests, **gpus},
        "limits": {**workload.resources.limits, **gpus},
    }


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
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "USER": USER_NAME,
        HUB_HOME_VARIABLE: f"{_CACHE}/huggingface",
        METRICS_PORT_VARIABLE: str(METRICS_PORT),
        TERMINATION_LOG_VARIABLE: "/dev/termination-log",
        **({} if settings.hub.enabled else {HUB_OFFLINE_VARIABLE: "1"}),
        **({THREADS_VARIABLE: str(workload.threads)} if workload.threads else {}),
        **settings.store.env,
        **workload.env,
    }
    variables = [{"name": name, "value": value} for name, value in values.items()]
    if settings.hub.token and uses_hub(task):
        variables.append(_secret(HUB_TOKEN_VARIABLE, settings.hub.token))
    if settings.vllm_api_key and isinstance(task.request, ServeRequest | EvaluateRequest):
        variables.append(_secret(VLLM_API_KEY_VARIABLE, settings.vllm_api_key))
    return variables


def uses_hub(task: Task) -> bool:
    """Whether a task downloads from the hub; an evaluator only if the lm-eval task keeps its own data."""
    if task.service is Service.EVALUATOR:
        return "data" in task.request.sweep.of_task(further_of(task)).evaluation.keep_from_task
    return not isinstance(task.request, CheckRequest)


def _secret(variable: str, key: SecretKey) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}
