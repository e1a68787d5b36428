"""The local files that a sweep's results depend on, and a check that they have not changed since the prepare stage.

Model and data of the hub are pinned by commit or kept in the store instead.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from surogate_bench.inputs.adapter_files import local_adapter_files
from surogate_bench.inputs.content import Digests, digests_of, model_files, require_same, task_files
from surogate_bench.inputs.data_files import scored_files, split_files
from surogate_bench.inputs.task_files import TaskFolders
from surogate_bench.inputs.trainer_commands import command_files
from surogate_bench.results import InputName, PrepareResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.model import ModelSpec
from surogate_bench.specs.task_errors import errors_of_task
from surogate_bench.specs.tasks import TaskEntry
from surogate_bench.stages.model_source import local_model_folder

INPUTS: tuple[InputName, ...] = ("data", "model", "tasks", "adapters", "trainers", "further_tasks", "task_data")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInput:
    """One local folder that a sweep names."""

    name: InputName
    field: str
    """Setting that names it."""
    folder: Path
    files: Mapping[str, Path]
    """Files that determine results, by name."""


def local_input(sweep: RecipeSweep, name: InputName) -> LocalInput | None:
    """Return one local input of a sweep; None if the sweep has no such input.

    Raises:
        ConfigError: its folder or a required file is missing.
    """
    return _FINDERS[name](sweep)


def digest_inputs(sweep: RecipeSweep, names: Iterable[InputName] = INPUTS) -> dict[InputName, Digests]:
    """Digest the local inputs of a sweep.

    Args:
        sweep: The sweep.
        names: Inputs that this process can read.

    Raises:
        ConfigError: a folder or a required file is missing.
    """
    found = [local_input(sweep, name) for name in names]  # all, before large files are read
    return {each.name: digests_of(each.files) for each in found if each is not None}


def require_unchanged(prepared: PrepareResult, sweep: RecipeSweep, names: Iterable[InputName] = INPUTS) -> None:
    """Check that local inputs have not changed since they were prepared.

    Data that was prepared by a version without digests passes.

    Args:
        prepared: Result of the prepare stage.
        sweep: The same sweep.
        names: Inputs that this process can read.

    Raises:
        ConfigError: one differs; names file and digests.
    """
    for name in names:
        recorded = prepared.inputs.get(name)
        if recorded is not None and (found := local_input(sweep, name)) is not None:
            require_same(recorded, found.files, field=found.field, folder=found.folder)


def _data(sweep: RecipeSweep) -> LocalInput | None:
    path = sweep.data.path
    if path is None:
        return None
    found = split_files(path, sweep.data.files, needs_test=sweep.needs_test_split)
    folder = path.parent if path.is_file() else path
    files = {file.relative_to(folder).as_posix(): file for files in found.values() for file in files}
    return LocalInput(name="data", field="data.path", folder=folder, files=files)


def _model(model: ModelSpec) -> LocalInput | None:
    folder = local_model_folder(model)
    if folder is None:
        return None
    field = "model.path" if model.path else "model.builtin"
    return LocalInput(name="model", field=field, folder=folder, files=model_files(folder))


def _tasks(evaluation: EvaluationSpec) -> LocalInput | None:
    folders = TaskFolders.of(evaluation.tasks_dir)
    folders.require(evaluation.task)
    task = folders.own(evaluation.task)
    if task is None:  # lm-eval's own
        return None
    field = "evaluation.task" if evaluation.tasks_dir is None else "evaluation.tasks_dir"
    return LocalInput(name="tasks", field=field, folder=evaluation.tasks_dir or task.parent, files=task_files(task))


def _further_tasks(sweep: RecipeSweep) -> LocalInput | None:
    return _of_tasks("further_tasks", sweep, lambda entry: _tasks(sweep.evaluation.of_task(entry.name)))


def _task_data(sweep: RecipeSweep) -> LocalInput | None:
    return _of_tasks("task_data", sweep, _test_files)


def _test_files(entry: TaskEntry) -> LocalInput | None:
    path = None if entry.data is None else entry.data.path
    if path is None:
        return None
    files = {file.name: file for file in scored_files(path)}
    return LocalInput(name="data", field="data.path", folder=path, files=files)


def _of_tasks(name: InputName, sweep: RecipeSweep, find: Callable[[TaskEntry], LocalInput | None]) -> LocalInput | None:
    """Join the inputs of all further tasks, whose files are named ``task/file``."""
    files, folders = dict[str, Path](), list[Path]()
    for entry in sweep.evaluation.tasks:
        with errors_of_task(sweep.evaluation, entry.name):
            part = find(entry)
        if part is not None:
            files |= {f"{entry.name}/{file}": path for file, path in part.files.items()}
            folders.append(part.folder)
    return LocalInput(name=name, field="evaluation.tasks", folder=folders[0], files=files) if folders else None


def _adapters(sweep: RecipeSweep) -> LocalInput | None:
    """Files of every adapter in a local folder, as ``name/file``."""
    folders = {adapter: adapter.path for adapter in sweep.adapters if adapter.path is not None}
    files = {
        f"{adapter.name}/{name}": path
        for adapter, folder in folders.items()
        for name, path in local_adapter_files(adapter, folder).items()
    }
    first = next(iter(folders.items()), None)
    return None if first is None else LocalInput(name="adapters", field="adapters", folder=first[1], files=files)


def _trainers(sweep: RecipeSweep) -> LocalInput | None:
    """Files in the commands of foreign trainers, each of which must be able to start."""
    files = {name: path for trainer in sweep.trainers for name, path in command_files(trainer).items()}
    first = next(iter(files.values()), None)
    return None if first is None else LocalInput(name="trainers", field="trainers", folder=first.parent, files=files)


_FINDERS: Mapping[InputName, Callable[[RecipeSweep], LocalInput | None]] = MappingProxyType(
    {
        "data": _data,
        "model": lambda sweep: _model(sweep.model),
        "tasks": lambda sweep: _tasks(sweep.evaluation),
        "adapters": _adapters,
        "trainers": _trainers,
        "further_tasks": _further_tasks,
        "task_data": _task_data,
    }
)
