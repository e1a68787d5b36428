"""Labels and annotations of a sweep's API objects."""

from surogate_bench.layout import run_name
from surogate_bench.stages.requests import (
    EvaluateRequest,
    ForeignTrainRequest,
    ImportRequest,
    ServeRequest,
    TrainRequest,
)
from surogate_bench_orchestrator.domain.tasks import Task, stage_of

DOMAIN = "bench.surogate.ai"
MANAGER = "surogate-bench-controller"
"""Field manager, and value of app.kubernetes.io/managed-by."""

INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
SWEEP = f"{DOMAIN}/sweep"
TASK = f"{DOMAIN}/task"
STAGE = f"{DOMAIN}/stage"
RUN = f"{DOMAIN}/run"
REQUEST = f"{DOMAIN}/request"
"""Annotation of a pod: the service's request, as JSON."""
PREPARE_REQUEST = f"{DOMAIN}/prepare-request"
"""The same for :data:`PREPARING`."""

CONTAINER = "main"
"""The container of a pod that runs its task; others may be injected, by a service mesh for example."""
PREPARING, COMMAND = "prepare", "trainer"
"""Init containers of a foreign trainer's pod: ours that writes what its command is given, and the user's image."""
CONTAINERS = (PREPARING, COMMAND, CONTAINER)
"""All of them, in the order in which they run, one after the other."""

FAILED = f"{DOMAIN}/failed"
"""Annotation of a Job or Deployment that the controller stopped: reason and message as JSON."""

READY_RESTARTS = f"{DOMAIN}/ready-restarts"
"""Annotation of a Deployment: ``<pod uid>/<restarts>`` when it was last ready."""


def labels_of(task: Task, instance: str) -> dict[str, str]:
    """Return the labels of a task's objects and pods."""
    request = task.request
    labels = {
        "app.kubernetes.io/name": "surogate-bench",
        INSTANCE: instance,
        COMPONENT: task.service.value,
        MANAGED_BY: MANAGER,
        SWEEP: request.sweep.name,
        TASK: task.name,
        STAGE: stage_of(task),
    }
    if isinstance(request, TrainRequest):
        labels[RUN] = run_name(request.recipe, request.seed)
    elif isinstance(request, ForeignTrainRequest):
        labels[RUN] = run_name(request.trainer, request.seed)
    elif isinstance(request, EvaluateRequest):
        labels[RUN] = request.run
    elif isinstance(request, ImportRequest):
        labels[RUN] = request.adapter
    elif isinstance(request, ServeRequest) and request.merged is not None:
        labels[RUN] = request.merged
    return labels


def selector_of(instance: str) -> str:
    """Return the label selector of everything that the controller of a release created."""
    return f"{MANAGED_BY}={MANAGER},{INSTANCE}={instance}"
