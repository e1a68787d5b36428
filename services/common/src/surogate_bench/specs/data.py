"""The records of a sweep's training and scoring."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, StringConstraints, field_validator, model_validator

from surogate_bench.specs.base import Spec
from surogate_bench.specs.model import ONE_SOURCE, REVISION_NEEDS_HUB, HubName

BUILTIN_NEEDS_SIZES = "a built-in data set needs train_size and test_size"
PROMPT_NEEDS_QUESTION = "prompt must contain {question}"
COMPLETION_NEEDS_ANSWER = "completion must contain {answer}"
FILES_NEED_PATH = "files only applies to a local folder: set path as well"
SPLITS_NEED_HUB = "splits only applies to the hub: set hub as well"
CONFIG_NEEDS_HUB = "config only applies to hub"

_PLACE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")
"""The place of a field in a prompt or completion."""

MANAGED_TEMPLATE_ARGUMENTS = frozenset(
    {
        "conversation", "conversations", "messages", "tools", "documents", "chat_template", "add_generation_prompt",
        "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs", "self",
    }
)  # fmt: skip
"""Arguments of rendering that are not arguments of the template, or are set for each record."""

DataFormat = Literal["question-answer", "prompt-completion", "instruction", "text", "messages"]
"""Shapes of records."""

RequestedFormat = Literal["auto", "question-answer", "prompt-completion", "instruction", "text", "messages"]

FieldName = Annotated[str, StringConstraints(min_length=1)]
FilePattern = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00][^\\\x00]*$")]
"""A file or a pattern such as ``chat/*.jsonl``, relative to a folder."""


def _usual(description: str) -> FieldName | None:
    """Make an optional field that is not dumped while it is None: hashes stay the same when others are added."""
    field: FieldName | None = Field(None, description=description, exclude_if=lambda value: value is None)
    return field


SHAPE_ROLES: Mapping[DataFormat, tuple[str, ...]] = MappingProxyType(
    {
        "question-answer": ("question", "answer"),
        "prompt-completion": ("prompt", "completion"),
        "instruction": ("instruction", "input", "output"),
        "text": ("text",),
        "messages": ("messages",),
    }
)
"""Roles of the fields of each shape, required or not. A message has ``role`` and ``content`` in addition."""
_MESSAGE_ROLES = ("content", "role")


class FieldNames(Spec):
    """Names of a data set's fields, if they are not the usual ones."""

    question: FieldName | None = _usual("Name of the field question; the same as data.question_field.")
    answer: FieldName | None = _usual("Name of the field answer; the same as data.answer_field.")
    prompt: FieldName | None = _usual("Name of the field prompt.")
    completion: FieldName | None = _usual("Name of the field completion.")
    instruction: FieldName | None = _usual("Name of the field instruction.")
    input: FieldName | None = _usual("Name of the field input.")
    output: FieldName | None = _usual("Name of the field output.")
    text: FieldName | None = _usual("Name of the field text.")
    messages: FieldName | None = _usual("Name of the field messages, or conversations.")
    role: FieldName | None = _usual("Name of the field role, or from, in a message.")
    content: FieldName | None = _usual("Name of the field content, or value, in a message.")


class SplitNames(Spec):
    """Names of a hub data set's splits, if they are not the usual ones."""

    train: FieldName | None = Field(None, description="Name of the training split, for example train_sft.")
    validation: FieldName | None = Field(None, description="Name of the validation split.")
    test: FieldName | None = Field(None, description="Name of the test split.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [self.train or "train", self.validation or "validation", self.test or "test"]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{repeated} would be read as two splits; what is trained on must not be scored")
        return self


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[FilePattern, ...], BeforeValidator(_listed)]


class SplitFiles(Spec):
    """Files of each split, relative to ``data.path``: names, or patterns such as ``chat/*.jsonl``."""

    train: Patterns = Field((), description="Files of the training split; train.jsonl or the like if empty.")
    validation: Patterns = Field((), description="Files of the validation split.")
    test: Patterns = Field((), description="Files of the test split.")

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for pattern in (*self.train, *self.validation, *self.test):
            if ".." in pattern.split("/"):
                raise ValueError(f"{pattern} leaves the folder data.path: choose a folder that contains all files")
        return self


class HoldOut(Spec):
    """Records that are taken out of the training split at random, by ``data.seed``."""

    validation: float | None = Field(
        None, gt=0, description="Validation records: a fraction below 1, or a number; replaces validation_size."
    )
    test: float | None = Field(None, gt=0, description="Test records: a fraction below 1, or a number.")

    @model_validator(mode="after")
    def _share_or_count(self) -> Self:
        for name, size in (("validation", self.validation), ("test", self.test)):
            if size is not None and size >= 1 and (size != int(size) or size == 1):
                raise ValueError(
                    f"{name} must be a fraction below 1, or a whole number of records (at least 2), not {size:g}"
                )
        shares = [size for size in (self.validation, self.test) if size is not None and size < 1]
        if sum(shares) >= 1:
            raise ValueError(f"validation and test take {sum(shares):g} of the records, and leave none to train on")
        return self


class DataSpec(Spec):
    """A data set: exactly one of ``hub``, ``path`` or ``builtin``.

    The shape of its records is detected, or given by ``format`` (docs/data.md). A task scores questions and answers,
    which are texts or numbers; a GSM8K answer ends with ``#### N``.
    """

    hub: HubName | None = Field(None, description="Name on the Hugging Face hub, for example OpenLLM-Ro/ro_gsm8k.")
    config: str | None = Field(None, description="Hub configuration, if the data set has several.")
    revision: str | None = Field(None, description="Hub revision (branch, tag or commit).")
    path: Path | None = Field(
        None,
        description="Local folder with files for train, test and optionally validation, such as train.jsonl; .json, "
        ".csv and .parquet, and .gz of each, are read as well. A single file is used as the training split.",
    )
    files: SplitFiles = Field(
        SplitFiles(),
        exclude_if=lambda value: value == SplitFiles(),  # as for all fields below: leaves the hash of sweeps unchanged
        description="Files of each split, if they are not named after the split, or if there are several.",
    )
    splits: SplitNames = Field(
        SplitNames(), exclude_if=lambda value: value == SplitNames(), description="Names of the splits on the hub."
    )
    builtin: Literal["word-problems-ro", "word-problems-en"] | None = Field(
        None, description="Generated grade-school word problems in Romanian or English."
    )
    format: RequestedFormat = Field(
        "auto",
        exclude_if=lambda value: value == "auto",
        description="Shape of the records; auto detects it from the fields of the first record.",
    )
    fields: FieldNames = Field(
        FieldNames(),
        exclude_if=lambda value: value == FieldNames(),
        description="Names of the fields, if they are not the usual ones.",
    )
    question_field: str = Field("question", description="Field of a record that holds the question.")
    answer_field: str = Field("answer", description="Field of a record that holds the worked answer.")
    prompt: str = Field("Question: {question}\nAnswer:", description="Prompt that the model receives.")
    completion: str = Field(
        " {answer}", description="Answer that the model is trained on; the end-of-text token follows it."
    )
    chat_template: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Render prompt and completion of each record as messages of user and assistant with the "
        "tokenizer's own chat template. Conversations are always rendered.",
    )
    chat_template_arguments: dict[str, JsonValue] = Field(
        {},
        exclude_if=lambda value: not value,
        description="Arguments for the chat template, in training and in scoring, such as {enable_thinking: false}.",
    )
    loss_on: Literal["all-assistant-turns", "last"] = Field(
        "all-assistant-turns",
        exclude_if=lambda value: value == "all-assistant-turns",
        description="Messages of a conversation that are included in the loss, unless training.loss_on is all: every "
        "message of the assistant, or its last one.",
    )
    train_size: int | None = Field(None, ge=1, description="Use the first N training records (all if absent).")
    validation_size: int = Field(
        100,
        ge=1,
        description="Records for the validation loss; taken from the end of train if there is no validation split.",
    )
    test_size: int | None = Field(None, ge=1, description="Use the first N test records (all if absent).")
    seed: int = Field(0, ge=0, description="Seed of the built-in generator, of shuffle and of hold_out.")
    shuffle: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Shuffle the training records by seed before sizes are applied.",
    )
    hold_out: HoldOut = Field(
        HoldOut(),
        exclude_if=lambda value: value == HoldOut(),
        description="Take splits that the data set lacks out of its training split.",
    )

    @field_validator("chat_template_arguments")
    @classmethod
    def _nothing_managed(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := MANAGED_TEMPLATE_ARGUMENTS & value.keys():
            raise ValueError(f"remove {', '.join(sorted(taken))}: surogate-bench sets it")
        return value

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
        for name, text, place in (("prompt", self.prompt, "{question}"), ("completion", self.completion, "{answer}")):
            if unknown := _PLACE.search(text.replace(place, " ")):
                raise ValueError(
                    f"{name} has {unknown[0]}, which is not a placeholder: only {place} is replaced. Remove it, or "
                    f"write {{ {unknown[0][1:-1]} }} for the text itself"
                )
        return self

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        if self.builtin and (without_effect := self._of_other_sources()):
            raise ValueError(f"a built-in data set is generated as it is: remove {', '.join(without_effect)}")
        for value, problem in ((self.config, CONFIG_NEEDS_HUB), (self.revision, REVISION_NEEDS_HUB)):
            if value is not None and self.hub is None:
                raise ValueError(f"{problem}: remove it")
        if self.files != SplitFiles() and self.path is None:
            raise ValueError(FILES_NEED_PATH)
        if self.splits != SplitNames() and self.hub is None:
            raise ValueError(SPLITS_NEED_HUB)
        for role, name in (("question", self.question_field), ("answer", self.answer_field)):
            if getattr(self.fields, role) not in (None, name) and name != role:
                raise ValueError(f"{role}_field and fields.{role} differ: remove one")
        for roles in (*SHAPE_ROLES.values(), _MESSAGE_ROLES):
            named = [self.name_of(role) for role in roles]
            if repeated := next((name for name in named if named.count(name) > 1), None):
                both = " and ".join(role for role, name in zip(roles, named, strict=True) if name == repeated)
                raise ValueError(f"{both} would both be read from the field {repeated}: name another one in fields")
        return self

    def _of_other_sources(self) -> list[str]:
        """Return the settings that are made and have no effect on generated data."""
        names = ("format", "fields", "files", "splits", "shuffle", "hold_out")
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    @property
    def label(self) -> str:
        """Name of the data set in tables."""
        return self.hub or self.builtin or str(self.path)

    @property
    def named_shapes(self) -> frozenset[DataFormat]:
        """Shapes of which the sweep names a field."""
        given = self.fields.model_dump(exclude_none=True).keys()
        return frozenset(
            shape
            for shape, roles in SHAPE_ROLES.items()
            if any(role in given or self.name_of(role) != role for role in roles)
        )

    def name_of(self, role: str) -> str:
        """Return the name of the field that has a role in a record, such as ``question``."""
        given: str | None = getattr(self.fields, role)
        if given is not None:
            return given
        return {"question": self.question_field, "answer": self.answer_field}.get(role, role)
