"""The questions and answers of a sweep's training and scoring."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from surogate_bench.specs.base import Spec
from surogate_bench.specs.model import ONE_SOURCE, HubName

BUILTIN_NEEDS_SIZES = "a built-in data set needs train_size and test_size"
PROMPT_NEEDS_QUESTION = "prompt must contain {question}"
COMPLETION_NEEDS_ANSWER = "completion must contain {answer}"


class DataSpec(Spec):
    """A question-and-answer data set: exactly one of ``hub``, ``path`` or ``builtin``.

    Records have a ``question`` and an ``answer``, texts or numbers; a GSM8K answer ends with ``#### N``.
    """

    hub: HubName | None = Field(None, description="Name on the Hugging Face hub, for example OpenLLM-Ro/ro_gsm8k.")
    config: str | None = Field(None, description="Hub configuration, where the data set has several.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    path: Path | None = Field(
        None,
        description="Local folder with files for train, test and optionally validation, such as train.jsonl; .json, "
        ".csv and .parquet, and .gz of each, are read as well.",
    )
    builtin: Literal["word-problems-ro", "word-problems-en"] | None = Field(
        None, description="Generated grade-school word problems in Romanian or English."
    )
    question_field: str = Field("question", description="Field of a record that holds the question.")
    answer_field: str = Field("answer", description="Field of a record that holds the worked answer.")
    prompt: str = Field("Question: {question}\nAnswer:", description="Prompt that the model receives.")
    completion: str = Field(" {answer}", description="Answer that it is trained on; the end-of-text token follows.")
    train_size: int | None = Field(None, ge=1, description="Use the first N training records (all if absent).")
    validation_size: int = Field(
        100,
        ge=1,
        description="Records for the validation loss; taken from the end of train if there is no such split.",
    )
    test_size: int | None = Field(None, ge=1, description="Use the first N test records (all if absent).")
    seed: int = Field(0, ge=0, description="Seed of the built-in generator.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("hub", "path", "builtin") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{ONE_SOURCE}; {' and '.join(given) or 'none'} given")
        if self.builtin and (self.train_size is None or self.test_size is None):
            raise ValueError(BUILTIN_NEEDS_SIZES)
        if "{question}" not in self.prompt:
            raise ValueError(PROMPT_NEEDS_QUESTION)
        if "{answer}" not in self.completion:
            raise ValueError(COMPLETION_NEEDS_ANSWER)
        return self

    @property
    def label(self) -> str:
        """Name of the data set in tables."""
        return self.hub or self.builtin or str(self.path)
