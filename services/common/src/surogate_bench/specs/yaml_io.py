"""Read a sweep from YAML, with errors that name the location and the remedy."""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from surogate_bench.errors import ConfigError
from surogate_bench.specs.evaluation import written_at
from surogate_bench.specs.strict_yaml import MAX_BYTES, StrictYamlError, read_yaml
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.user_paths import expand_home, require_current_folder

_EVALUATION = "evaluation"


def load_sweep(path: Path, *, for_images: bool = False) -> RecipeSweep:
    """Read and validate one sweep file.

    Relative local paths inside it (model.path, data.path, evaluation.tasks_dir, adapters.*.path, and arguments of
    trainers.*.command that begin with ./ or ../) are taken relative to
    the file, and a recipe given as a name ending in ``.yaml`` is read from that file.

    Args:
        path: The file.
        for_images: Whether commands run in images, which have no files of this machine: their arguments stay as they
            are.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not describe a sweep.
    """
    base = (require_current_folder() / path).resolve().parent
    return sweep_in(_read_mapping(path, field="sweep file"), base, for_images=for_images)


def sweep_in(document: dict[str, Any], base: Path, *, for_images: bool = False) -> RecipeSweep:
    """Validate the document of a sweep file, whose local paths are made absolute in place.

    Args:
        document: The parsed YAML.
        base: Folder of the file, absolute and without symbolic links.
        for_images: The same as for :func:`load_sweep`.

    Raises:
        ConfigError: it does not describe a sweep.
    """
    for field, value, key in _with_paths(document):
        if isinstance(value, dict) and isinstance(value.get(key), str):
            value[key] = str(base / expand_home(value[key], field=f"{field}.{key}"))
    for field, entry in () if for_images else _entries(document, "trainers"):
        _resolve_command(field, entry, base)
    if isinstance(document.get("recipes"), list):
        document["recipes"] = [
            _read_mapping(base / expand_home(entry, field=f"recipes.{index}"), field=f"recipes.{index}")
            if isinstance(entry, str) and entry.endswith(".yaml")
            else entry
            for index, entry in enumerate(document["recipes"])
        ]
    return parse_sweep(document)


def _with_paths(document: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield the sections that may name local paths: path of the section, its value, and the key."""
    for section, key in (("model", "path"), ("data", "path"), ("evaluation", "tasks_dir")):
        yield section, document.get(section), key
    for field, adapter in _entries(document, "adapters"):
        yield field, adapter, "path"
    evaluation = document.get("evaluation")
    for field, entry in _entries(evaluation if isinstance(evaluation, dict) else {}, "tasks"):
        yield f"evaluation.{field}", entry, "tasks_dir"
        if isinstance(entry, dict):
            yield f"evaluation.{field}.data", entry.get("data"), "path"


def _entries(document: dict[str, Any], section: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a list with their fields."""
    entries = document.get(section)
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        yield f"{section}.{index}", entry


def _resolve_command(field: str, trainer: object, base: Path) -> None:
    """Make arguments that begin with ``./`` or ``../`` paths from the sweep file on."""
    command = trainer.get("command") if isinstance(trainer, dict) else None
    if not isinstance(command, list):
        return
    for index, argument in enumerate(command):
        if isinstance(argument, str) and argument.startswith(("./", "../")):
            command[index] = os.path.normpath(base / expand_home(argument, field=f"{field}.command.{index}"))


def with_seeds(sweep: RecipeSweep, seeds: Sequence[int]) -> RecipeSweep:
    """Return the sweep with other seeds; unchanged if none are given.

    Raises:
        ConfigError: the seeds are not what a sweep may have.
    """
    if not seeds:
        return sweep
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigError(
            "seeds are whole numbers of at least 0, each given once",
            field="--seed",
            value=" ".join(map(str, seeds)),
            remedy="For example --seed 0 --seed 1.",
        )
    return parse_sweep(sweep.model_dump(mode="json", exclude_none=True) | {"seeds": list(seeds)})


def parse_sweep(document: dict[str, Any]) -> RecipeSweep:
    """Validate a sweep that has been parsed from YAML or JSON.

    Raises:
        ConfigError: naming the first field that is wrong, and how many more are.
    """
    try:
        return RecipeSweep.model_validate(document)
    except ValidationError as error:
        problems = problems_of(error, document)
        first = problems[0]
        problems = [each for each in problems if each is first or each["loc"] != first["loc"][: len(each["loc"])]]
        cause = getattr(first.get("ctx", {}).get("error"), "__cause__", None)
        if isinstance(cause, ConfigError):  # more specific
            raise ConfigError(
                cause.problem,
                field=_dotted(first["loc"]) if first["loc"] else cause.field,
                value=cause.value,
                remedy=cause.remedy,
            ) from error
        more = "" if len(problems) == 1 else f" (and {len(problems) - 1} more: {_fields(problems[1:])})"
        raise ConfigError(
            _problem(first) + more,
            field=_dotted(first["loc"]),
            value=None if isinstance(first["input"], dict) else first["input"],
            remedy=_remedy(first["type"], first["loc"]),
        ) from error


def problems_of(error: ValidationError, document: Mapping[str, Any]) -> list[ErrorDetails]:
    """Return the problems of a sweep, each at the place where the document has it.

    Missing fields come last: a misspelled name, which is also missing, is the cause.
    """
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] == "missing")
    for each in problems:
        if each["loc"][:1] == (_EVALUATION,):
            each["loc"] = (_EVALUATION, *written_at(each["loc"][1:], document.get(_EVALUATION)))
    return problems


def _fields(problems: list[ErrorDetails]) -> str:
    return ", ".join(_dotted(problem["loc"]) for problem in problems)


def _dotted(location: tuple[int | str, ...]) -> str:
    """Format a path such as ``training.lora.r``; unusual keys are quoted."""
    parts = (str(part) for part in location)
    return ".".join(part if part.strip() and part.isprintable() else repr(part) for part in parts) or "sweep"


_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "extra_forbidden": "there is no such field",
        "tuple_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
        "string_type": "must be text",
    }
)
"""Problems by pydantic's name, where its own message names types of Python."""


def _problem(first: ErrorDetails) -> str:
    return _PROBLEMS.get(first["type"]) or str(first["msg"]).removeprefix("Value error, ")


def _remedy(kind: str, location: tuple[int | str, ...]) -> str:
    if kind == "extra_forbidden":
        likely = get_close_matches(str(location[-1]), _fields_beside(location), n=1)
        return f"Did you mean {likely[0]}?" if likely else "Remove it or correct its spelling."
    if kind == "missing":
        return "Add this field."
    if kind == "string_type":
        return "Write text in quotes."
    if kind == "tuple_type":
        return "Write a list, such as [one, two]."
    return "Correct it; `surogate-bench validate FILE` checks a file without running it."


def _fields_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the fields of the section that an unknown field is in; none if several models are possible."""
    model: Any = RecipeSweep
    for part in location[:-1]:
        model = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return list(model.model_fields)


def _read_mapping(path: Path, *, field: str) -> dict[str, Any]:
    try:
        document = read_yaml(_read_start(path))
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}",
            field=field,
            value=str(path),
            remedy="Give the path of a readable YAML file.",
        ) from error
    except StrictYamlError as error:
        raise ConfigError(
            f"is not valid YAML: {error}", field=field, value=str(path), remedy="Correct that."
        ) from error
    if not isinstance(document, dict):
        raise ConfigError(
            "is empty" if document is None else f"must be a mapping, not {type(document).__name__}",
            field=field,
            value=str(path),
            remedy="See configs/ for examples.",
        )
    return document


def _read_start(path: Path) -> bytes:
    """Read a file up to a size limit, so that an endless one is refused."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
