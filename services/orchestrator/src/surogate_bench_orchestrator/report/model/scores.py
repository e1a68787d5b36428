"""Figures that several parts of a summary hold: accuracies and paired differences."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

RowState = Literal["succeeded", "failed", "skipped", "pending"]
STRICT, FLEXIBLE = "strict exact match", "flexible exact match"
"""Metrics of generated answers, where a result names none."""


class Part(BaseModel):
    """Base of everything in a summary."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(Part):
    """Accuracy on the test questions; fractions in 0..1. Over several seeds: means over them."""

    accuracy: float
    """Value of the task's metric, which is strict exact match if nothing else is named: the headline."""
    stderr: float
    low: float
    """Lower end of the 95 % interval: over questions with one seed, over seeds and questions with several."""
    high: float
    seed_stddev: float | None
    """Standard deviation of the seeds' accuracies; None with one seed."""
    flexible_accuracy: float | None
    """Value of the task's second metric, usually flexible exact match; None where it has one metric."""
    samples: int
    """Distinct test questions."""
    empty_answers: int
    """Over all seeds."""
    largest_empty_share: float = 0.0
    """Largest share of empty answers that a seed has."""
    empty_share: float = 0.0
    """Over all seeds, as the following."""
    cut_off_answers: int | None = None
    """Answers that max_gen_toks ended; None, as in the following, where a result does not have it."""
    cut_off_share: float | None = None
    unformatted_answers: int | None = None
    """Answers without one in the format that the metric reads."""
    unformatted_share: float | None = None
    unfinished_share: float | None = None
    """Share of answers that are wrong and were cut off or empty: accuracy can be too low by no more than that."""
    tokens_per_answer: float | None = None
    eval_seconds: float
    parallel_evaluations: int


class Comparison(Part):
    """Paired difference to another row on the same questions and seeds; positive where this row is better."""

    delta: float
    """``accuracy`` minus ``other_accuracy``."""
    stderr: float
    low: float
    """Lower end of the 95 % interval of ``delta``: over questions with one seed, over seeds and questions with more."""
    high: float
    seeds: tuple[int, ...]
    """Seeds that both have; the difference is taken over them."""
    accuracy: float
    """This row's, over ``seeds``."""
    other_accuracy: float
    """The other row's, over ``seeds``."""
    of_all_seeds: bool
    """Whether both rows' own accuracies are over exactly ``seeds``, so that ``delta`` is the difference of them."""
    only_this: int
    """Answers (question and seed) that only this row has right."""
    only_reference: int
    p_value: float | None
    """P value of no difference between the recipes, over seeds and questions; None with fewer than two seeds."""
    p_adjusted: float | None
    """``p_value``, Holm-adjusted over the rows that have one against the same reference."""
    p_questions: float | None
    """P value of no difference between these two adapters on other questions of the kind (exact McNemar test): it
    concerns the questions only, not the recipes. None with several seeds."""
    p_questions_adjusted: float | None
    """``p_questions``, Holm-adjusted over the rows that have one against the same reference."""
