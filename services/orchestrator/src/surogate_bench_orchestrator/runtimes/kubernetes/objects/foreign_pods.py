"""The further containers in the pod of a foreign trainer: the user's image between two steps of this software; pure.

Three containers run one after the other, so that the user's image needs no part of this software and gets no
credentials: ``prepare`` writes the input of the command into a volume, ``trainer`` runs the command with only that
volume and a scratch volume, and ``main`` checks and uploads its output.
"""

from pathlib import Path

from surogate_bench.contract import REQUEST_FILE, THREADS_VARIABLE, TRAINER_REQUEST_VARIABLE
from surogate_bench.inputs.trainer_commands import command_in_image
from surogate_bench.specs import ForeignTrainer
from surogate_bench.stages.requests import ContainerStep, ForeignTrainRequest
from surogate_bench_orchestrator.domain.tasks import Task
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.objects.containers import (
    LAST_LINES,
    RESTRICTED,
    SCRATCH,
    USER_NAME,
    resources_of,
    service_container,
)
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import COMMAND, PREPARE_REQUEST, PREPARING
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings

_SHARED = Path("/trainer")
_PREPARE_FILE = f"prepare-{REQUEST_FILE}"
_MOUNT = {"name": "trainer", "mountPath": str(_SHARED)}
_WITHOUT_IDENTITY = ("eks.amazonaws.com/skip-containers", "azure.workload.identity/skip-containers")
"""Annotations that keep credentials of the ServiceAccount's cloud identity out of some containers of a pod."""


def collecting(request: ForeignTrainRequest) -> ForeignTrainRequest:
    """Return the request of the container that checks and uploads."""
    return request.model_copy(update={"in_container": ContainerStep(step="collect", folder=_SHARED)})


def add_command(template: Object, task: Task, request: ForeignTrainRequest, settings: ClusterSettings) -> None:
    """Add to a pod's template what runs before its main container, and the volumes for it.

    Args:
        template: With the main container and its volumes.
        task: Its task.
        request: From :func:`collecting`.
        settings: Settings of the installation.
    """
    annotations, spec = template["metadata"]["annotations"], template["spec"]
    step = ContainerStep(step="prepare", folder=_SHARED)
    prepare = request.model_copy(update={"in_container": step}).model_dump_json(exclude_none=True)
    annotations |= {PREPARE_REQUEST: prepare} | dict.fromkeys(_WITHOUT_IDENTITY, COMMAND)
    spec["initContainers"] = [_preparing(task, settings), _command(request, settings)]
    spec["containers"][0]["volumeMounts"].append(_MOUNT)
    requests = next(volume for volume in spec["volumes"] if volume["name"] == "request")
    requests["downwardAPI"]["items"].append(
        {"path": _PREPARE_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{PREPARE_REQUEST}']"}}
    )
    spec["volumes"] += [{"name": name, "emptyDir": {}} for name in (_MOUNT["name"], "trainer-scratch")]


def _preparing(task: Task, settings: ClusterSettings) -> Object:
    """Return the container of ours before the command: without a GPU, with the resources of preparation."""
    workload = settings.trainer.model_copy(update={"gpus": 0, "resources": settings.prepare.resources})
    container = service_container(task, settings, workload, name=PREPARING, file=_PREPARE_FILE)
    container["volumeMounts"].append(_MOUNT)
    del container["ports"]  # of the main container
    return container


def _command(request: ForeignTrainRequest, settings: ClusterSettings) -> Object:
    trainer, path = request.sweep.trainer(request.trainer), _SHARED / "request" / REQUEST_FILE
    return {
        "name": COMMAND,
        "image": trainer.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": [_literal(argument) for argument in command_in_image(trainer, path)],
        "workingDir": str(_SHARED / "scratch"),
        "terminationMessagePolicy": LAST_LINES,
        "env": _environment(trainer, settings.trainer.threads, path),
        "resources": resources_of(settings.trainer, settings),
        "securityContext": RESTRICTED,
        "volumeMounts": [_MOUNT, {"name": "trainer-scratch", "mountPath": SCRATCH}],
    }


def _environment(trainer: ForeignTrainer, threads: int | None, path: Path) -> list[Object]:
    values = {
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "USER": USER_NAME,
        **({THREADS_VARIABLE: str(threads)} if threads else {}),
        **trainer.environment,
        TRAINER_REQUEST_VARIABLE: str(path),
    }
    return [{"name": name, "value": _literal(value)} for name, value in values.items()]


def _literal(text: str) -> str:
    """Escape what Kubernetes would replace: ``$(NAME)``."""
    return text.replace("$", "$$")
