"""What a report says, as data: the one source of every table, chart caption and page."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

RowState = Literal["succeeded", "failed", "skipped", "pending"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(_Part):
    """Accuracy on the test questions; fractions in 0..1. Over several seeds: means over them."""

    accuracy: float
    """Strict exact match: the headline."""
    stderr: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    flexible_accuracy: float
    samples: int
    """Distinct test questions."""
    empty_answers: int
    eval_seconds: float
    parallel_evaluations: int


class Comparison(_Part):
    """Paired difference to another row on the same questions; positive where this row is better."""

    delta: float
    stderr: float
    low: float
    """Lower end of the 95 % interval of ``delta``."""
    high: float
    p_value: float
    p_adjusted: float
    """Holm-adjusted over the rows compared with the same reference."""
    only_this: int
    """Answers (question and seed) that only this row has right."""
    only_reference: int


class Training(_Part):
    """How the adapter was trained. Over several seeds: means, but the largest memory and the widest sharing."""

    engine: str | None
    steps: int
    tokens: int
    tokens_per_second: float
    side_by_side: int
    threads: int
    train_seconds: float
    peak_memory_bytes: int
    weight_bytes: int
    operand_cache_bytes: int
    final_train_loss: float
    last_validation_loss: float | None
    resumed_from_step: int


class Row(_Part):
    """The base model, a recipe (over all its seeds), or one run of a recipe."""

    key: str
    """``base``, the recipe's name, or the run's name."""
    title: str
    recipe: str | None
    seed: int | None
    """None for the base model and for a row over seeds."""
    seeds_scored: int
    """Seeds behind ``score``."""
    state: RowState
    reason: str
    """Why the state is not ``succeeded``; empty otherwise."""
    score: Score | None
    training: Training | None
    versus_reference: Comparison | None
    versus_base: Comparison | None


class RecipeText(_Part):
    """One recipe in words."""

    name: str
    title: str
    storage: str
    compute: str
    details: str


class DataDigest(_Part):
    """One data split as it was used."""

    split: str
    records: int
    sha256: str


class Machine(_Part):
    """One kind of machine, and the stages that ran on it."""

    description: str
    details: dict[str, Any]
    runs: tuple[str, ...]


class Summary(_Part):
    """A whole report. Fractions, seconds and bytes; a row that failed is there with its reason."""

    name: str
    spec_hash: str
    description: str
    date: datetime | None
    """When the newest stage finished; None before the first."""
    headline: str
    """The result in two sentences."""
    model: str
    model_source: str
    data: str
    splits: tuple[DataDigest, ...]
    task: str
    machines: tuple[Machine, ...]
    versions: dict[str, str]
    reference: str | None
    """Key of the row that differences are taken to: the recipe without quantization."""
    reference_title: str | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    """The base model where it was asked for, then every recipe in the sweep's order."""
    runs: tuple[Row, ...]
    """The same for each run, where the sweep has several seeds; empty otherwise."""
    recipes: tuple[RecipeText, ...]
    notes: tuple[str, ...]
    """What a reader must know to read the figures right."""
    warnings: tuple[str, ...] = ()
    """What the prepare stage warned of; in ``notes`` too."""

    def all_rows(self) -> Iterator[Row]:
        """Rows over seeds, then rows per run."""
        yield from self.rows
        yield from self.runs
