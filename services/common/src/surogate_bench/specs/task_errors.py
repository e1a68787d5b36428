"""Errors about a further task name the settings of its entry, although it is scored as if it were the primary task."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.tasks import TaskData, TaskEntry

_ONLY_OF_AN_ENTRY = {"name", "primary"}
_ONLY_OF_THE_PRIMARY_TASK = {"keep_from_task"}
_OF_EVALUATION = {
    f"evaluation.{name}": f".{name}"
    for name in TaskEntry.model_fields.keys() - _ONLY_OF_AN_ENTRY - _ONLY_OF_THE_PRIMARY_TASK
}
_OF_DATA = {f"data.{name}": f".data.{name}" for name in (*TaskData.model_fields, "test")} | {
    f"data.{role}_field": f".data.fields.{role}" for role in ("question", "answer")
}


def data_field(task: str) -> str:
    """Return the name of the setting of a further task's data."""
    return f"evaluation.tasks.{task}.data"


@contextmanager
def errors_of_task(evaluation: EvaluationSpec, task: str | None) -> Iterator[None]:
    """Name the settings of a further task where an error about ``of_task(task)`` names those of the primary one.

    ``evaluation.task`` becomes ``evaluation.tasks.NAME``, and ``data.test:3``, if the entry has data,
    ``evaluation.tasks.NAME.data.test:3``. Settings that an entry cannot have stay as they are.

    Args:
        evaluation: Settings of the whole sweep.
        task: Name of a further task; None for the primary one, whose errors stay as they are.

    Raises:
        ConfigError: as it was raised, with the names of the entry in field, problem and remedy.
        TransientError: likewise.
    """
    names = {} if task is None else _names(evaluation.entry(task))
    try:
        yield
    except ConfigError as error:
        field, problem, remedy = (_renamed(text, names) for text in (error.field, error.problem, error.remedy))
        if (field, problem, remedy) == (error.field, error.problem, error.remedy):
            raise
        raise ConfigError(problem, field=field, value=error.value, remedy=remedy) from error
    except TransientError as error:
        raise TransientError(_renamed(str(error), names)) from error


def _names(entry: TaskEntry) -> Mapping[str, str]:
    """Return the settings of the primary task that the entry has too, and their names there."""
    own = f"evaluation.tasks.{entry.name}"
    data = {} if entry.data is None else {"data": ".data", **_OF_DATA}
    return {name: f"{own}{suffix}" for name, suffix in {"evaluation.task": "", **_OF_EVALUATION, **data}.items()}


def _renamed(text: str, names: Mapping[str, str]) -> str:
    if text in names:
        return names[text]
    settings = "|".join(re.escape(name) for name in names if "." in name)  # "data" alone is an ordinary word
    return re.sub(rf"(?<![\w./])({settings})\b", lambda found: names[found[1]], text) if settings else text
