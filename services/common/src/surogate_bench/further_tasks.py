"""Errors about further tasks, by the names of their own settings."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.specs.tasks import TaskData, TaskEntry

_OF_THE_ENTRY: Mapping[str, str] = MappingProxyType(
    {f"evaluation.{name}": name for name in TaskEntry.model_fields.keys() - {"primary", "keep_from_task"}}
    | {"evaluation.task": "name"}
    | {f"data.{name}": f"data.{name}" for name in (*TaskData.model_fields, "test")}
    | {f"data.{role}_field": f"data.fields.{role}" for role in ("question", "answer")}
)
"""Settings of the sweep's primary task that an entry of ``evaluation.tasks`` has too, by their names there."""
_SETTING = re.compile(rf"(?<![\w./])({'|'.join(map(re.escape, _OF_THE_ENTRY))})\b")


def data_field(task: str) -> str:
    """Return the name of the setting of a further task's data."""
    return f"evaluation.tasks.{task}.data"


@contextmanager
def naming_task(task: str) -> Iterator[None]:
    """Name the settings of a further task where an error names those of the primary one.

    Args:
        task: Name of the further task that is treated as if it were primary.

    Raises:
        ConfigError: instead of one that names ``data.path``, for example, for ``evaluation.tasks.<task>.data.path``.
        TransientError: likewise.
    """

    def own(text: str) -> str:
        return _SETTING.sub(lambda found: f"evaluation.tasks.{task}.{_OF_THE_ENTRY[found[1]]}", text)

    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            own(error.problem), field=own(error.field), value=error.value, remedy=own(error.remedy)
        ) from error
    except TransientError as error:
        raise TransientError(own(str(error))) from error
