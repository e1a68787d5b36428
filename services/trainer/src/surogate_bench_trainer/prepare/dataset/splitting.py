"""Splits of a data set: shuffled, taken out of the training split, and cut to the requested sizes."""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from surogate_bench.errors import ConfigError
from surogate_bench.specs.data import DataFormat, DataSpec
from surogate_bench_trainer.data.records import Completion, Conversation, ReadRecord, Record, ScoredRecord, Text

Splits = dict[str, list[ReadRecord]]
"""``train``, ``validation`` and, unless the task has its own data, ``test``."""


_FEWEST = 2
"""Records that ``data.hold_out`` may take as a number, at least."""


def require_splits(splits: Splits, spec: DataSpec, *, needs_test: bool) -> None:
    """Check that the required splits have records.

    Raises:
        ConfigError: one has none.
    """
    for name in ("train", "test") if needs_test else ("train",):
        if not splits.get(name):
            raise ConfigError(
                f"the data set has no {name} records",
                field="data",
                value=spec.label,
                remedy="A data set needs a train and a test split; data.hold_out.test takes one out of the other.",
            )


def require_named_fields(splits: Splits, spec: DataSpec) -> None:
    """Check that some split has records of each shape of which the sweep names a field.

    Raises:
        ConfigError: none has; the name would have no effect.
    """
    found = {type(records[0]) for records in splits.values() if records}
    for shape in sorted(spec.named_shapes):
        if _RECORDS[shape] not in found:
            raise ConfigError(
                f"names fields of {shape} records, and no split has such records: {_shapes_of(found)}",
                field="data.fields",
                value=spec.fields.model_dump(exclude_none=True),
                remedy="Correct the names, or remove those without effect.",
            )


def _shapes_of(found: set[type]) -> str:
    kinds = {kind.__name__.lower() for kind in found}
    return f"they were read as {' and '.join(sorted(kinds))}"


_RECORDS: Mapping[DataFormat, type] = MappingProxyType(
    {
        "question-answer": Record,
        "instruction": Record,
        "prompt-completion": Completion,
        "text": Text,
        "messages": Conversation,
    }
)


def hold_out(splits: Splits, spec: DataSpec) -> Splits:
    """Take validation and test records out of the training split at random, then shuffle it, as the sweep requests.

    Records that are held out, and those that remain unless they are shuffled, keep their order. All depends on
    ``data.seed`` and the number of records alone.

    Raises:
        ConfigError: the data set has a split that would be taken, or too few records.
    """
    order, taken = _random_order(len(splits["train"]), spec.seed), Splits()
    for name in ("validation", "test"):
        size: float | None = getattr(spec.hold_out, name)
        if size is None:
            continue
        if name in splits:
            raise _hold_out_error(name, size, f"the data set has a {name} split of its own", "Remove this setting.")
        count = int(size) if size >= 1 else round(size * len(splits["train"]))
        if not 0 < count < len(order):
            raise _hold_out_error(name, size, *_why_empty(name, count, len(order), len(splits["train"])))
        chosen, order = order[:count], order[count:]
        taken[name] = [splits["train"][index] for index in sorted(chosen)]
    if not taken and not spec.shuffle:
        return splits
    kept = order if spec.shuffle else sorted(order)
    return splits | taken | {"train": [splits["train"][index] for index in kept]}


def _why_empty(name: str, count: int, left: int, total: int) -> tuple[str, str]:
    """Return problem and remedy where a split would be empty.

    Args:
        name: Split that is taken.
        count: Records that it would have.
        left: Training records that are left to take it from.
        total: Training records of the data set.
    """
    if count == 0:
        return (
            f"is less than one of {total} training records: {name} would be empty",
            f"Raise it: 1 of {total} or more.",
        )
    available = f"{left} training records" if left == total else f"the {left} training records that are left"
    remedy = f"Lower it to less than {left} records." if left > _FEWEST else "Give more records."
    return f"takes {count} of {available}: none would remain to train on", remedy


def _random_order(count: int, seed: int) -> list[int]:
    """Return 0 to ``count - 1`` in an order that no version of a library changes."""
    return sorted(range(count), key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest())


def _hold_out_error(name: str, size: float, problem: str, remedy: str) -> ConfigError:
    value = int(size) if size >= 1 else size
    return ConfigError(problem, field=f"data.hold_out.{name}", value=value, remedy=remedy)


def with_scorable_test(splits: Splits, *, needed: bool) -> Splits:
    """Check that the test records have questions and answers; where they are not needed, leave out others.

    Raises:
        ConfigError: they are needed and have none.
    """
    test = splits.get("test", [])
    if needed:
        require_answers(
            test,
            remedy="Give test records with question and answer (data.files.test or data.splits.test), or let the task "
            "keep its own data and prompt: evaluation.keep_from_task: [data, prompt].",
        )
    elif test and type(test[0]) in _WITHOUT_ANSWERS:
        return {name: records for name, records in splits.items() if name != "test"}
    return splits


def require_answers(test: Sequence[ReadRecord], *, remedy: str) -> None:
    """Check that records have questions and answers; all are of the first one's shape.

    Raises:
        ConfigError: they have none.
    """
    if test and (kind := _WITHOUT_ANSWERS.get(type(test[0]))):
        raise ConfigError(
            f"the test records are {kind}, and the task scores an answer to a question",
            field="data.test",
            remedy=remedy,
        )


def scored_records(splits: Splits) -> list[ScoredRecord]:
    """Return the test records; empty if the task has its own data."""
    return [record for record in splits.get("test", ()) if isinstance(record, Record | Completion)]


_WITHOUT_ANSWERS: dict[type, str] = {Conversation: "conversations", Text: "texts"}


def resize(splits: Splits, spec: DataSpec) -> Splits:
    """Take a missing validation split from the end of train, then reduce all splits to the requested sizes.

    Raises:
        ConfigError: a split is too small, or validation records have another shape than training records.
    """
    train, validation = _with_validation(splits, spec)
    test = splits.get("test")
    for name, size, available in (("train", spec.train_size, train), ("test", spec.test_size, test)):
        if size is not None and available is not None and size > len(available):
            raise ConfigError(
                f"is larger than the number of available records, {len(available)}",
                field=f"data.{name}_size",
                value=size,
                remedy="Lower it or leave it out.",
            )
    validation_size = spec.validation_size if spec.hold_out.validation is None else None
    sized = {"train": train[: spec.train_size], "validation": validation[:validation_size]}
    return sized if test is None else sized | {"test": test[: spec.test_size]}


def _with_validation(splits: Splits, spec: DataSpec) -> tuple[list[ReadRecord], list[ReadRecord]]:
    train, validation = splits["train"], splits.get("validation", [])
    if not validation:
        others = "" if spec.hold_out.test is None else " besides those held out for the test"
        if len(train) <= spec.validation_size:
            raise ConfigError(
                f"leaves nothing to train on: there are {len(train)} training records{others}, and no validation split",
                field="data.validation_size",
                value=spec.validation_size,
                remedy="Lower it, set data.hold_out.validation, or add a validation split.",
            )
        return train[: -spec.validation_size], train[-spec.validation_size :]
    if type(validation[0]) is not type(train[0]):
        raise ConfigError(
            "the validation records have another shape than the training records",
            field="data.validation",
            value=type(validation[0]).__name__.lower(),
            remedy="Give both the same fields, or state data.format.",
        )
    return train, validation
