"""What a text that names a model, data set or task means: something built in, local files, or a name on the hub."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from surogate_bench.inputs.data_files import COMPRESSED, FORMATS
from surogate_bench.stages.model_source import CONVERTED_MODELS, SHIPPED_MODELS
from surogate_bench_orchestrator.cli.commands.init.answers import Source, TaskAnswer

BUILTIN_MODELS = (*SHIPPED_MODELS, *CONVERTED_MODELS)
BUILTIN_DATA = ("word-problems-ro", "word-problems-en")
_PATH_STARTS = (".", "/", "~")


def source_from(text: str, builtin: Collection[str], folder: Path) -> Source:
    """Return what a text names.

    Args:
        text: A built-in name, an absolute path or one that starts from the current folder, or a name on the hub.
        builtin: Built-in names.
        folder: Folder of the sweep file, which the paths in it start from.
    """
    if text in builtin:
        return Source("builtin", text)
    if text.startswith(_PATH_STARTS) or text.removesuffix(COMPRESSED).endswith(FORMATS) or _exists(text):
        return Source("path", path_from(text, folder))
    return Source("hub", text)


def path_from(text: str, folder: Path) -> str:
    """Return a path that starts from the current folder as one from another folder; others stay as they are."""
    if text.startswith(("/", "~")):
        return text
    return os.path.relpath(Path.cwd().resolve() / text, folder.resolve())


def recipes_from(names: Iterable[str], folder: Path) -> list[str]:
    """Return recipes by name; those that are files by their paths from the folder of the sweep file."""
    return [path_from(name, folder) if name.endswith(".yaml") else name for name in names]


def task_from(text: str, folder: Path) -> TaskAnswer:
    """Return a task that is given as ``NAME`` or ``NAME=DATA``."""
    name, given, data = text.partition("=")
    return TaskAnswer(name, source_from(data, BUILTIN_DATA, folder) if given else None)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
