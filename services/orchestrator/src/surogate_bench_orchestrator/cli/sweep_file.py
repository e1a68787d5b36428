"""The file that describes a sweep."""

from pathlib import Path

from surogate_bench.data_files import scored_files, split_files
from surogate_bench.model_source import require_model_folder
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.task_files import TaskFolders


def read_sweep(path: Path) -> RecipeSweep:
    """Read a sweep, and check that the local files and the task that it names exist.

    Raises:
        ConfigError: it cannot be used as it is.
    """
    sweep = load_sweep(path)
    if sweep.model.path is not None:
        require_model_folder(sweep.model.path)
    if sweep.data.path is not None:
        split_files(sweep.data.path, sweep.data.files, needs_test=sweep.needs_test_split)
    for task in (None, *sweep.evaluation.further_tasks):
        evaluation = sweep.of_task(task).evaluation
        TaskFolders.of(evaluation.tasks_dir).require(evaluation.task)
    for entry in sweep.evaluation.tasks:
        if entry.data is not None and entry.data.path is not None:
            scored_files(entry.data.path)
    return sweep
