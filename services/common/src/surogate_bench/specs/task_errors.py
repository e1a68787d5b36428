"""Errors about a further task name the settings of its entry, although it is scored as if it were the primary task."""

from collections.abc import Iterator
from contextlib import contextmanager

from surogate_bench.errors import ConfigError
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench.specs.tasks import TaskEntry

_TASK, _SECTION, _DATA = "evaluation.task", "evaluation.", "data"


@contextmanager
def errors_of_task(evaluation: EvaluationSpec, task: str | None) -> Iterator[None]:
    """Convert the field of an error about ``of_task(task)`` to that of the task's entry in ``evaluation.tasks``.

    ``evaluation.task`` becomes ``evaluation.tasks.NAME``, and ``data.test:3`` ``evaluation.tasks.NAME.data:3``. Fields
    of the sweep that the entry does not replace stay as they are.

    Args:
        evaluation: Settings of the whole sweep.
        task: Name of a further task; None for the primary one, whose errors stay as they are.

    Raises:
        ConfigError: as it was raised, with the converted field.
    """
    try:
        yield
    except ConfigError as error:
        field = error.field if task is None else _field_of_entry(error.field, evaluation.entry(task))
        if field == error.field:
            raise
        raise ConfigError(error.problem, field=field, value=error.value, remedy=error.remedy) from error


def _field_of_entry(field: str, entry: TaskEntry) -> str:
    own = f"{_TASK}s.{entry.name}"
    if field == _TASK:
        return own
    if field.startswith(_SECTION) and getattr(entry, field.removeprefix(_SECTION), None) not in (None, ()):
        return f"{own}.{field.removeprefix(_SECTION)}"
    if field.partition(".")[0] == _DATA and entry.data is not None:
        return f"{own}.{field.replace(f'{_DATA}.test:', f'{_DATA}:')}"
    return field
