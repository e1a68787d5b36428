"""Warnings about repeated records, which affect the interpretation of the results."""

from surogate_bench_trainer.data.records import Completion, Conversation, ReadRecord, Record, Text
from surogate_bench_trainer.prepare.dataset.splitting import Splits

_OVERLAPS = {
    "test": "so accuracies may reflect memorized answers.",
    "validation": "so the validation loss is not measured on unseen questions only.",
}


def repetition_warnings(splits: Splits) -> list[str]:
    """Count test and validation questions that are also training questions, and records repeated within a split.

    Questions are compared exactly, records as a whole. The question of a conversation is everything that its user says;
    in training, each message of the user is a question too. A text is a question itself.
    """
    trained = {question for record in splits["train"] for question in (_question(record), *_user_messages(record))}
    warnings = []
    for name, consequence in _OVERLAPS.items():
        records = splits.get(name, [])
        shared = sum(_question(record) in trained for record in records)
        if shared:
            warnings.append(
                _sentence(shared, len(records), f"{name} questions", f"in the training split too, {consequence}")
            )
    for name, records in splits.items():
        if repeated := len(records) - len(set(records)):
            warnings.append(_sentence(repeated, len(records), f"{name} records", "repetitions of an earlier one."))
    return warnings


def _question(record: ReadRecord) -> str:
    match record:
        case Record():
            return record.question
        case Completion():
            return record.prompt
        case Text():
            return record.text
        case Conversation():
            return "\n\n".join(_user_messages(record))


def _user_messages(record: ReadRecord) -> tuple[str, ...]:
    if not isinstance(record, Conversation):
        return ()
    return tuple(message.content for message in record.messages if message.role == "user")


def _sentence(count: int, total: int, what: str, state: str) -> str:
    share = f"All {total:,}" if count == total else f"{count:,} of {total:,}"
    return f"{share} {what} {'is' if count == 1 else 'are'} {state}"
