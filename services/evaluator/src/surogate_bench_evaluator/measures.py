"""Which of a task's metrics is its accuracy, and which is the second metric."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surogate_bench.errors import ConfigError

Samples = Sequence[Mapping[str, Any]]
"""lm-eval's samples: one for each record and filter."""

_REMEDY = "Give its file the filter_list and metric_list of configs/tasks/ro_gsm8k.yaml, or name one in metric."
_REMEDY_OF_CHOICE = "Give its file the metric_list of configs/tasks/word_problem_choice.yaml, or name one in metric."


@dataclass(frozen=True, slots=True)
class Measure:
    """One of lm-eval's metrics under one of its filters."""

    metric: str
    under: str

    @property
    def key(self) -> str:
        """Name in lm-eval's results."""
        return f"{self.metric},{self.under}"

    @property
    def label(self) -> str:
        """Name in the results of a sweep."""
        return self.metric if self.under == "none" else self.key


STRICT = Measure("exact_match", "strict-match")
FLEXIBLE = Measure("exact_match", "flexible-extract")
_CHOSEN, _CHOSEN_BY_LENGTH = Measure("acc", "none"), Measure("acc_norm", "none")


def measures_of(task: str, logged: Samples, *, asked: str | None, chooses: bool) -> tuple[Measure, Measure | None]:
    """Return the metric that is the accuracy, and a second one if the task has it.

    Args:
        task: Name of the task.
        logged: Its samples.
        asked: Metric that the sweep names; None for the usual ones.
        chooses: Whether it is a task of multiple choice.

    Raises:
        ConfigError: the task lacks it, or it is not right or wrong for each question.
    """
    if asked is not None:
        metric, _, under = asked.partition(",")
        first, second = Measure(metric, under or "none"), None
    else:
        first, second = (_CHOSEN, _CHOSEN_BY_LENGTH) if chooses else (STRICT, FLEXIBLE)
    remedy = _REMEDY_OF_CHOICE if chooses else _REMEDY
    require(task, logged, first, remedy)
    if second is not None and chooses and not right_by_index(logged, second):
        return first, None
    if second is not None:
        require(task, logged, second, remedy)
    return first, second


def require(task: str, logged: Samples, measure: Measure, remedy: str) -> None:
    """Check that each question has a score of 0 or 1; ``remedy`` is what to do where it has not.

    Raises:
        ConfigError: it has not.
    """
    values = [sample[measure.metric] for sample in logged if _is_of(sample, measure)]
    if values and all(value in {0, 1} for value in values):
        return
    under = "" if measure.under == "none" else f" under a filter named {measure.under}"
    has = sorted({str(name) for sample in logged for name in sample.get("metrics", ())})
    known = f" (it has {', '.join(has)})" if has else ""
    problem = f"does not score {measure.metric} as right or wrong" if values else f"has no {measure.metric}{under}"
    raise ConfigError(f"{problem}{known}", field="evaluation.task", value=task, remedy=remedy)


def right_by_index(logged: Samples, measure: Measure) -> dict[int, bool]:
    """Return whether each answer is right, by the number of its record."""
    return {sample["doc_id"]: bool(sample[measure.metric] == 1) for sample in logged if _is_of(sample, measure)}


def _is_of(sample: Mapping[str, Any], measure: Measure) -> bool:
    return sample["filter"] == measure.under and measure.metric in sample
