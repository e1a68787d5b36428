"""The file that describes a sweep."""

from pathlib import Path

from surogate_bench.inputs.model_limits import require_positions, stated_positions
from surogate_bench.inputs.trainer_commands import command_files
from surogate_bench.results import InputName
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench.stages.local_inputs import local_input
from surogate_bench.stages.model_source import local_model_folder

_CHECKED: tuple[InputName, ...] = ("data", "tasks", "adapters", "further_tasks", "task_data")


def read_sweep(path: Path) -> RecipeSweep:
    """Read a sweep, and check that the local files and the task that it names exist and fit it.

    Programs of foreign trainers are checked by :func:`require_trainers`.

    Raises:
        ConfigError: it cannot be used as it is.
    """
    sweep = load_sweep(path)
    require_local_files(sweep)
    return sweep


def require_local_files(sweep: RecipeSweep) -> None:
    """Check that the local files and the task that a sweep names exist and fit it.

    Raises:
        ConfigError: one is missing, or does not fit.
    """
    folder = local_model_folder(sweep.model)
    if folder is not None:
        require_positions(sweep, stated_positions(folder))
    for name in _CHECKED:
        local_input(sweep, name)


def require_trainers(sweep: RecipeSweep) -> None:
    """Check that the commands of foreign trainers can start on this machine, unless they have an image for others.

    Raises:
        ConfigError: one cannot.
    """
    for trainer in sweep.trainers:
        if trainer.image is None:
            command_files(trainer)
