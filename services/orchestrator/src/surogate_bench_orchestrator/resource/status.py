"""The status of a RecipeSweep: what the controller writes, and what the command line reads.

The CustomResourceDefinition's schema is generated from these models. Unknown fields are left out of the object.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class SweepPhase(StrEnum):
    """A summary of the conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"
    REJECTED = "Rejected"


class ConditionType(StrEnum):
    """Conditions of a sweep."""

    ADMITTED = "Admitted"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, as the API server holds it."""


def _one_of(values: type[StrEnum]) -> dict[str, Any]:
    """Restrict a string in the schema only, so that statuses of newer versions can be read."""
    return {"enum": [value.value for value in values]}


def _map_list(key: str) -> dict[str, Any]:
    """Merge a list by a key of its items, as server-side apply does."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class StatusModel(BaseModel):
    """Base of the models: camelCase in the object, snake_case in Python."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Condition(StatusModel):
    """A condition as in metav1.Condition."""

    type: str = Field(max_length=316)
    status: str = Field(json_schema_extra=_one_of(ConditionStatus))
    observed_generation: int = Field(0, ge=0)
    last_transition_time: Timestamp
    reason: str = Field(max_length=1024)
    message: str = Field(max_length=32768)

    @property
    def is_true(self) -> bool:
        """Whether the condition holds."""
        return self.status == ConditionStatus.TRUE


class StatusRow(StatusModel):
    """Status of a run, or of a stage that the runs share."""

    name: str = Field(description="Name of the run, for example fp8-s0.")
    recipe: str = Field(
        "", description="Name of its recipe, foreign trainer or foreign adapter; base for the base model."
    )
    seed: int | None = Field(None, description="Its seed.")
    state: str = Field(
        description="Pending, Training, Importing, Trained, Evaluating, Succeeded, Failed or Skipped; for a service "
        "Pending, Starting, Running, Done or Failed."
    )
    detail: str = Field("", description="Current activity within the state.")
    attempt: int = Field(0, description="Number of the attempt, from 1.")
    step: int = Field(0, description="Optimizer steps taken, or requests of an evaluation answered, so far.")
    total: int = Field(0, description="Optimizer steps or requests in total.")
    loss: float | None = Field(None, description="Training loss.")
    tokens_per_second: float | None = Field(None, description="Training speed, tokens/s.")
    elapsed_seconds: float | None = Field(None, description="Elapsed time, seconds.")
    accuracy: float | None = Field(
        None,
        description="Fraction of test questions answered correctly by the primary task's metric, served as published.",
    )
    stderr: float | None = Field(None, description="Standard error of the accuracy.")
    served_accuracies: dict[str, float] = Field(
        {},
        description="The same fraction by the recipe that the base was served under.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    merged_accuracies: dict[str, float] = Field(
        {},
        description="The same fraction of the adapter merged into the base, by the recipe that it was served under; "
        "bf16 for the merged weights as they are.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    task_accuracies: dict[str, float] = Field(
        {},
        description="Fraction of questions answered correctly by further task, served as published.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    uri: str = Field("", description="Location of its results in the object store.")
    reason: str = Field("", description="CamelCase reason why it failed, was skipped, or is retried.")
    message: str = Field("", description="Details of the reason.")


class SweepStatus(StatusModel):
    """Observed state of the sweep."""

    observed_generation: int = Field(0, description="metadata.generation that this status was computed from.")
    phase: str = Field("", description="Summary of the conditions in one word.", json_schema_extra=_one_of(SweepPhase))
    spec_hash: str = Field("", description="Hash that identifies the experiment; part of the results' location.")
    results_uri: str = Field("", alias="resultsURI", description="Location of the results in the object store.")
    start_time: Timestamp | None = Field(None, description="Time when the first task was started.")
    completion_time: Timestamp | None = Field(None, description="Time when the sweep ended.")
    progress: str = Field("", description="Runs that have ended, of all runs, for example 3/8.")
    failed: int | None = Field(None, description="Number of failed runs.")
    best: str = Field(
        "",
        description="Recipe or trainer with the highest mean accuracy so far, over the seeds that all scored ones "
        "have, and how many these are; an observation on the test questions, not a test.",
    )
    conditions: tuple[Condition, ...] = Field(
        (), description=f"One each of {', '.join(ConditionType)}.", json_schema_extra=_map_list("type")
    )
    runs: tuple[StatusRow, ...] = Field(
        (),
        description="One row for each run: a recipe or trainer with a seed, a foreign adapter, or the base model.",
        json_schema_extra=_map_list("name"),
    )
    services: tuple[StatusRow, ...] = Field(
        (),
        description="Stages that the runs share: data preparation, checks, model server.",
        json_schema_extra=_map_list("name"),
    )

    @classmethod
    def of(cls, resource: Mapping[str, Any]) -> Self:
        """Read the status of a resource as the API server holds it; empty if no controller has written one."""
        return cls.model_validate(resource.get("status") or {})

    def to_object(self) -> dict[str, Any]:
        """Return the status as the API server holds it, without unknown fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of a type; None if it is not set."""
        return next((each for each in self.conditions if each.type == kind), None)

    def is_true(self, kind: ConditionType) -> bool:
        """Whether a condition is set and True."""
        condition = self.condition(kind)
        return condition is not None and condition.is_true

    @property
    def is_final(self) -> bool:
        """Whether the sweep has ended."""
        return self.is_true(ConditionType.COMPLETE) or self.is_true(ConditionType.FAILED)

    @property
    def rows(self) -> tuple[StatusRow, ...]:
        """Services, then runs: the order in which stages depend on each other."""
        return (*self.services, *self.runs)
