"""What would be trained and scored, as the trainer service describes it before anything runs."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from surogate_bench.results import PrepareResult


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Part):
    """Consecutive tokens of a sample as text, special tokens included."""

    text: str
    counts: bool
    """Whether they are included in the loss."""


class ShownSample(_Part):
    """One training sample as the model receives it."""

    record: int
    """Number of the record in the prepared training split, from 1."""
    chosen: tuple[str, ...]
    """Why it is shown: first, typical (of median length), longest."""
    tokens: int
    counted: int
    """Tokens that are included in the loss."""
    parts: tuple[TextPart, ...]


class TaskPrompt(_Part):
    """What one task scores, with its first prompt as it is sent."""

    task: str
    records: int | None
    """Records that it scores; None where it scores data of its own."""
    prompt: str | None
    """Text of the tokens that the server computes for the first record; None where the prompt is the task's own."""
    tokens: int | None
    longest: int | None
    """Tokens of the longest prompt, solved examples excluded."""
    notes: tuple[str, ...]
    """What is sent along with it, or why it is not shown; one sentence each."""


class LengthBin(_Part):
    """Samples of ``first`` to ``last`` tokens, both included."""

    first: int
    last: int
    samples: int


class Lengths(_Part):
    """Tokens of each training sample, end-of-text token included."""

    samples: int
    minimum: int
    median: int
    p95: int
    maximum: int
    limit: int
    """``training.max_length``. A longer sample is refused, never cut."""
    bins: tuple[LengthBin, ...]


class TrainedTokens(_Part):
    """Tokens that go through the model."""

    tokens: int
    counted: int
    """Those included in the loss."""


class SeedSchedule(_Part):
    """Length of the training with one seed: packing, and so the number of steps, depends on the seed."""

    seed: int
    rows: int
    """Sequences of an epoch: packed samples, or without packing one sample each."""
    row_fill: float
    """Mean share of ``training.max_length`` that the samples of a row take."""
    steps_per_epoch: int
    steps: int
    """Optimizer steps of the whole training."""
    total: TrainedTokens
    """Tokens in all steps together."""


class Inspection(_Part):
    """A sweep's data and model, checked and described; nothing of it is stored."""

    prepared: PrepareResult
    """The result as the prepare stage would publish it."""
    configuration: dict[str, Any]
    """The model's ``config.json``."""
    samples: tuple[ShownSample, ...]
    tasks: tuple[TaskPrompt, ...]
    """The primary one first."""
    lengths: Lengths
    epoch: TrainedTokens
    schedules: tuple[SeedSchedule, ...]
    """One per seed, in the sweep's order."""
    model_bytes: int
    """Size of the model's files."""
    data_bytes: int
    """Size of the prepared data."""
    lora_parameters: int
    """Trained parameters of one adapter."""
