"""Expansion and checks of paths in user input, and of the disks they are on."""

import os
import shutil
from pathlib import Path

from surogate_bench.errors import ConfigError


def expand_home(text: str, *, field: str) -> Path:
    """Replace a leading ``~`` or ``~user`` by that home folder.

    Args:
        text: The path.
        field: Setting it comes from, for the error.

    Raises:
        ConfigError: there is no such home folder, or the path holds a NUL character.
    """
    if "\0" in text:
        raise ConfigError("contains a NUL character", field=field, value=text, remedy="Correct the path.")
    path = Path(text)
    if not text.startswith("~"):
        return path
    home = path.parts[0]
    try:
        expanded = path.expanduser()
    except RuntimeError as error:
        why = "the home folder is unknown: HOME is not set" if home == "~" else f"there is no user {home[1:]}"
        raise ConfigError(why, field=field, value=text, remedy="Write the folder's whole path.") from error
    if home == "~" and not os.path.isabs(os.environ.get("HOME", "/")):  # noqa: PTH117 - a variable, not a path
        raise ConfigError(
            f"the home folder is unknown: HOME is {os.environ['HOME']!r}",
            field=field,
            value=text,
            remedy="Set HOME to the folder's whole path.",
        )
    return expanded


def require_current_folder() -> Path:
    """Get the current folder, which relative paths start from.

    Raises:
        ConfigError: it was deleted, or may not be read.
    """
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"has been deleted or cannot be read ({error.strerror})",
            field="current folder",
            value=os.environ.get("PWD"),
            remedy="Change to a folder that exists.",
        ) from error


def require_folder(path: Path, *, field: str) -> None:
    """Check that a path is a folder, or can become one.

    Raises:
        ConfigError: it or a folder above it is a file, or its name is not possible.
    """
    try:
        present = next(each for each in (path, *path.parents) if each.exists())
        if present.is_dir():
            return
        problem = "is a file, not a folder" if present == path else f"cannot be a folder: {present} is a file"
    except OSError as error:
        problem = f"cannot be used: {error.strerror}"
    raise unwritable(path, problem, field=field)


def unwritable(folder: Path, problem: str, *, field: str) -> ConfigError:
    """Make the error of a folder that cannot be written.

    Args:
        folder: The folder.
        problem: What is wrong, as a clause.
        field: What the user gave the folder as.
    """
    return ConfigError(problem, field=field, value=str(folder), remedy="Choose a folder you may write.")


def require_free_space(folder: Path, needed: int, *, field: str, what: str) -> None:
    """Check the free space of the disk that a folder, which may not exist yet, is on.

    Args:
        folder: What will be written to.
        needed: Bytes.
        field: What the user gave the folder as.
        what: What takes the space, with its verb, for example "a sweep needs at least".

    Raises:
        ConfigError: there is too little.
    """
    present = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(present).free
    if free < needed:
        raise ConfigError(
            f"is on a disk with {free >> 20:,} MiB free, and {what} {needed >> 20:,} MiB",
            field=field,
            value=str(folder),
            remedy="Free some space, or choose a folder on another disk.",
        )
