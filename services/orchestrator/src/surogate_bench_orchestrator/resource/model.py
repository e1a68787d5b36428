"""Converts a sweep to its resource, and back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.yaml_io import problems_of
from surogate_bench_orchestrator.resource import API_VERSION, KIND
from surogate_bench_orchestrator.resource.rules import (
    FILES_IN_IMAGE,
    IMAGE_REQUIRED,
    MAX_REQUEST_BYTES,
    MAX_RUNS,
    NO_LOCAL_FILES,
    TASKS_PER_ROW,
)
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec

_FIX = "Correct it: delete the RecipeSweep, change its manifest and apply it again."
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_LOCAL_PATHS = (
    ("model", "path", "Use hub or builtin"),
    ("data", "path", "Use hub or builtin"),
    ("evaluation", "tasks_dir", "Use a task that comes with the image"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSweep:
    """The content of a RecipeSweep resource."""

    name: str
    namespace: str
    uid: str
    generation: int
    sweep: RecipeSweep
    suspend: bool
    reuse: bool
    scheduling: SchedulingSpec


def parse_resource(obj: Mapping[str, Any]) -> ResourceSweep:
    """Read a resource as the API server holds it.

    Raises:
        ConfigError: it is invalid in a way that the schema cannot exclude; ``field`` is a path in the
            resource.
    """
    metadata, spec = obj.get("metadata") or {}, dict(obj.get("spec") or {})
    suspend, reuse = _flag(spec, "suspend", default=False), _flag(spec, "reuse", default=True)
    scheduling = spec.pop("scheduling", None) or {}
    if "name" in spec:
        raise ConfigError(
            "there is no such field",
            field="spec.name",
            value=spec["name"],
            remedy="Remove it: metadata.name is the sweep's name.",
        )
    name = metadata.get("name", "")
    try:
        placed = SchedulingSpec.model_validate(scheduling)
    except ValidationError as error:
        raise _explained(error, ("spec", "scheduling"), remedy="Correct it; spec.scheduling may be changed.") from error
    try:
        sweep = RecipeSweep.model_validate({"name": name, **spec})
    except ValidationError as error:
        raise _explained(error, ("spec",), remedy=_FIX, document=spec) from error
    _require_images(sweep, "spec.")
    _require_few_runs(sweep, "spec.seeds")
    _require_short(sweep, "spec")
    return ResourceSweep(
        name=name,
        namespace=metadata.get("namespace", ""),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        sweep=sweep,
        suspend=suspend,
        reuse=reuse,
        scheduling=placed,
    )


def _flag(spec: dict[str, Any], name: str, *, default: bool) -> bool:
    value = spec.pop(name, default)
    if not isinstance(value, bool):
        raise ConfigError("must be true or false", field=f"spec.{name}", value=value, remedy="Set true or false.")
    return value


def resource_of(sweep: RecipeSweep, namespace: str | None = None) -> dict[str, Any]:
    """Convert a sweep to the manifest of a RecipeSweep.

    Every setting is written out, so that the stored object means the same to every later version, and applying it
    again changes nothing. Fields that are set in the cluster (``suspend``, ``reuse``, ``scheduling``) are left out.

    Args:
        sweep: The sweep; refers to no local folders.
        namespace: Omitted if None.

    Raises:
        ConfigError: it names a local folder, which pods do not have, has foreign trainers without
            images, or has more runs than a status has room for.
    """
    for field, path, remedy in _local_paths(sweep):
        raise ConfigError(
            "is a folder of this machine, which the pods of a cluster do not have",
            field=field,
            value=str(path),
            remedy=f"{remedy}; for a folder that is mounted into the pods, write the RecipeSweep resource yourself.",
        )
    _require_images(sweep, "")
    _require_few_runs(sweep, "seeds")
    _require_short(sweep, "sweep")
    metadata = {"name": sweep.name} | ({"namespace": namespace} if namespace else {})
    spec = sweep.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _require_images(sweep: RecipeSweep, prefix: str) -> None:
    """Check that foreign trainers have images, and that their commands name no files of this machine.

    Raises:
        ConfigError: one has none, or names one.
    """
    for trainer in sweep.trainers:
        if trainer.image is None:
            raise ConfigError(
                IMAGE_REQUIRED,
                field=f"{prefix}trainers.{trainer.name}.image",
                remedy="Set it to an image that has the command, or train on a machine and use adapters.",
            )
        for argument in trainer.command:
            if argument.startswith(("./", "../")):
                raise ConfigError(
                    NO_LOCAL_FILES,
                    field=f"{prefix}{trainer.field}",
                    value=argument,
                    remedy=f"{FILES_IN_IMAGE[0].upper()}{FILES_IN_IMAGE[1:]}.",
                )


def _require_short(sweep: RecipeSweep, field: str) -> None:
    size = len(sweep.model_dump_json().encode())
    if size > MAX_REQUEST_BYTES:
        raise ConfigError(
            f"has {size:,} bytes as JSON, and a RecipeSweep may have {MAX_REQUEST_BYTES:,}, as its pods carry it in "
            "their annotations",
            field=field,
            value=sweep.name,
            remedy="Shorten it: put long commands and environments of trainers into their images.",
        )


def _require_few_runs(sweep: RecipeSweep, field: str) -> None:
    tasks = len(sweep.evaluation.further_tasks)
    most = MAX_RUNS * TASKS_PER_ROW // (TASKS_PER_ROW + tasks)
    if (runs := len(sweep.trained) * len(sweep.seeds)) > most:
        among = f" with {tasks} further tasks" if tasks else ""
        raise ConfigError(
            f"with {len(sweep.trained)} recipes and trainers these are {runs:,} runs, and a RecipeSweep{among} may "
            f"have {most:,}",
            field=field,
            value=len(sweep.seeds),
            remedy="Split it into several sweeps.",
        )


def _local_paths(sweep: RecipeSweep) -> Iterator[tuple[str, Path, str]]:
    """Yield the folders of this machine that a sweep names: setting, folder, and what to use instead."""
    for section, key, instead in _LOCAL_PATHS:
        if (path := getattr(getattr(sweep, section), key)) is not None:
            yield f"{section}.{key}", path, instead
    for entry in sweep.evaluation.tasks:
        if entry.tasks_dir is not None:
            yield f"evaluation.tasks.{entry.name}.tasks_dir", entry.tasks_dir, _LOCAL_PATHS[2][2]
        if entry.data is not None and entry.data.path is not None:
            yield f"evaluation.tasks.{entry.name}.data.path", entry.data.path, _LOCAL_PATHS[1][2]
    for adapter in sweep.adapters:
        if adapter.path is not None:
            yield adapter.field, adapter.path, "Copy it into a bucket and use url, or use hub"


def _explained(
    error: ValidationError, prefix: tuple[str, ...], *, remedy: str, document: Mapping[str, Any] = MappingProxyType({})
) -> ConfigError:
    problems = problems_of(error, document)
    first = problems[0]
    where = ("metadata", "name") if first["loc"] == ("name",) else (*prefix, *first["loc"])
    more = "" if len(problems) == 1 else f" (and {len(problems) - 1} more problems)"
    shown = first["input"] if isinstance(first["input"], str | int | float) else None
    message = "there is no such field" if first["type"] in _UNKNOWN else first["msg"]
    return ConfigError(
        message.removeprefix("Value error, ") + more, field=".".join(map(str, where)), value=shown, remedy=remedy
    )
