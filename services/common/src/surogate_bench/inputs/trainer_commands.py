"""The commands of foreign trainers: whether they can start, and the local files that they name."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.specs.trainers import PYTHON_PLACE, REQUEST_PLACE, ForeignTrainer

PYTHON_OF_IMAGES = "python3"
"""What ``{python}`` is in an image."""


def argument_name(trainer: ForeignTrainer, index: int) -> str:
    """Name an argument of a command among the inputs of a sweep."""
    return f"{trainer.name}/{index}"


def command_files(trainer: ForeignTrainer) -> Mapping[str, Path]:
    """Find the files that a command names by a whole path: scripts and settings, but no binary program.

    Returns:
        Paths by :func:`argument_name`.

    Raises:
        ConfigError: its program cannot be started, or a path with a file's ending does not exist.
    """
    require_program(trainer)
    found = {}
    for index, argument in enumerate(trainer.command):
        path = Path(argument)
        if not path.is_absolute():
            continue
        if path.is_file() and (index or _is_script(path)):
            found[argument_name(trainer, index)] = path
        elif path.suffix and not path.exists():
            raise _unusable(trainer, "there is no such file", argument, "Correct the path.")
    return found


def _is_script(program: Path) -> bool:
    with program.open("rb") as file:
        return file.read(2) == b"#!"


def require_program(trainer: ForeignTrainer) -> str:
    """Return the path of a command's program.

    Raises:
        ConfigError: there is none, or it may not be run.
    """
    program = _placed(trainer.command[0], request=None)
    search = trainer.environment.get("PATH", os.environ.get("PATH"))
    if found := shutil.which(program, path=search):
        return found
    if os.sep in program and Path(program).exists():
        raise _unusable(trainer, "is not an executable file", program, f"Make it executable: chmod +x {program}")
    raise _unusable(
        trainer,
        "there is no such program",
        program,
        "Install it, correct its name, or give its path; {python} is the interpreter that runs surogate-bench.",
    )


def full_command(trainer: ForeignTrainer, request: Path) -> list[str]:
    """Return the command to start, with its program's path and all places filled in.

    Raises:
        ConfigError: its program cannot be started.
    """
    return [require_program(trainer), *(_placed(argument, request) for argument in trainer.command[1:])]


def command_in_image(trainer: ForeignTrainer, request: Path) -> list[str]:
    """Return the command to start in the trainer's image, with all places filled in; the image has the program."""
    return [_placed(argument, request, python=PYTHON_OF_IMAGES) for argument in trainer.command]


def _placed(argument: str, request: Path | None, *, python: str = sys.executable) -> str:
    text = argument.replace(PYTHON_PLACE, python)
    return text if request is None else text.replace(REQUEST_PLACE, str(request))


def _unusable(trainer: ForeignTrainer, problem: str, value: str, remedy: str) -> ConfigError:
    return ConfigError(problem, field=trainer.field, value=value, remedy=remedy)
