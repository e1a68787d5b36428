"""Whether a RecipeSweep can run: its spec is valid, its task exists, and the object store is usable."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.controller.status.builder import INVALID
from surogate_bench_orchestrator.controller.sweep.store_connection import StoreConnection
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.resource.model import ResourceSweep, parse_resource


@dataclass(frozen=True, slots=True)
class Admitted:
    """A sweep that can run, and the store for its results."""

    resource: ResourceSweep
    store: ObjectStore


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sweep that cannot run."""

    failure: Failure


Admission = Admitted | Rejected


def review(item: Mapping[str, Any], connection: StoreConnection) -> Admission | None:
    """Return whether a sweep is admitted; None while the store is still being checked.

    Args:
        item: The resource.
        connection: To the object store.
    """
    try:
        resource = parse_resource(item)
        _require_task(resource)
    except ConfigError as error:
        return Rejected(Failure(INVALID, str(error)))
    if connection.store is not None:
        return Admitted(resource, connection.store)
    return Rejected(connection.failure) if connection.failure else None


def _require_task(resource: ResourceSweep) -> None:
    """Check that the images contain the sweep's task.

    Raises:
        ConfigError: they do not.
    """
    for further in (None, *resource.sweep.evaluation.further_tasks):
        evaluation = resource.sweep.of_task(further).evaluation
        if evaluation.tasks_dir is not None:  # the folder is mounted into the pods
            continue
        try:
            TaskFolders.of(None).require(evaluation.task)
        except ConfigError as error:
            raise ConfigError(
                "there is no such task in the images",
                field="spec.evaluation.task" + ("" if further is None else "s"),
                value=evaluation.task,
                remedy=error.remedy,
            ) from error
