"""Further lm-eval tasks of a sweep, in addition to its primary one."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StringConstraints, ValidationError, model_validator

from surogate_bench.specs.base import Spec
from surogate_bench.specs.data import DataSpec, FieldNames
from surogate_bench.specs.model import HubName

KeptPart = Literal["data", "prompt", "num_fewshot"]

BUILTIN_TASK_NEEDS_SIZE = "a built-in data set needs test_size"
SEED_NEEDS_BUILTIN = "seed only applies to a built-in data set: remove it"

TASK_NAME = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,48}[A-Za-z0-9])?$"
"""Safe in paths, and in labels of Kubernetes behind ``check-task-``."""
TASK_DESCRIPTION = "Name of a task in configs/tasks, in tasks_dir or in lm-eval's collection."

MetricName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(,[A-Za-z0-9_.-]+)?$")]


def metric_field() -> MetricName | None:
    """Make the field of a task's metric."""
    field: MetricName | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Metric of the accuracy as lm-eval names it, such as acc_norm or exact_match,flexible-extract. By "
        "default exact_match under strict-match, with flexible-extract as the second metric; for multiple choice acc, "
        "with acc_norm as the second metric.",
    )
    return field


class TaskData(Spec):
    """Questions and answers that a task scores instead of its own: exactly one of ``hub``, ``path`` or ``builtin``."""

    hub: HubName | None = Field(None, description="Name on the Hugging Face hub; its test split is scored.")
    config: str | None = Field(None, description="Hub configuration, if the data set has several.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    path: Path | None = Field(None, description="Local file, or a folder with a test file such as test.jsonl.")
    builtin: Literal["word-problems-ro", "word-problems-en"] | None = Field(
        None, description="Generated grade-school word problems in Romanian or English."
    )
    fields: FieldNames = Field(FieldNames(), description="Names of the fields, if they are not the usual ones.")
    test_size: int | None = Field(None, ge=2, description="Use the first N records (all if absent).")
    seed: int = Field(0, ge=0, description="Seed of the built-in generator.")
    prompt: str = Field("Question: {question}\nAnswer:", description="Prompt that the model receives.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.builtin and self.test_size is None:
            raise ValueError(BUILTIN_TASK_NEEDS_SIZE)
        if self.seed and not self.builtin:
            raise ValueError(SEED_NEEDS_BUILTIN)
        try:
            _ = self.as_data
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
        return self

    @property
    def as_data(self) -> DataSpec:
        """The same as the data of a sweep; nothing is trained on it."""
        given = self.model_dump(exclude_unset=True)
        return DataSpec.model_validate(given | ({"train_size": 1} if self.builtin else {}))


class TaskEntry(Spec):
    """One task of ``evaluation.tasks``.

    A further task uses its own file's data, prompt and number of solved examples, unless ``data`` gives others.
    """

    name: str = Field(pattern=TASK_NAME, description=TASK_DESCRIPTION)
    primary: StrictBool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Whether this is the task of the headline, the main table and the metrics; by default, the first "
        "task is.",
    )
    tasks_dir: Path | None = Field(None, description="Folder with additional task YAML files, for this task.")
    keep_from_task: tuple[KeptPart, ...] = Field(
        (), max_length=3, description="The same as evaluation.keep_from_task; for the primary task only."
    )
    data: TaskData | None = Field(None, description="Questions and answers that replace the task's own.")
    num_fewshot: int | None = Field(
        None, ge=0, le=64, description="Solved examples shown before each question; the task's own number if absent."
    )
    metric: MetricName | None = metric_field()
    limit: int | None = Field(None, ge=2, description="Score the first N records only.")
    max_gen_toks: int | None = Field(
        None,
        ge=1,
        description="Maximum number of tokens of an answer; evaluation.max_gen_toks if absent. Not for multiple "
        "choice, which generates none.",
    )

    @property
    def kept(self) -> tuple[KeptPart, ...]:
        """Parts of the task's own file that a further task uses."""
        own_shots: tuple[KeptPart, ...] = ("num_fewshot",) if self.num_fewshot is None else ()
        return () if self.data is not None else ("data", "prompt", *own_shots)
