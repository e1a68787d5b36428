"""Warnings about repeated records, which affect the interpretation of the results."""

from surogate_bench_trainer.prepare.sources import Splits

_OVERLAPS = {
    "test": "so accuracies may reflect memorized answers.",
    "validation": "so the validation loss is not measured on unseen questions only.",
}


def repetition_warnings(splits: Splits) -> list[str]:
    """Count test and validation questions that are also training questions, and records repeated within a split.

    Questions are compared exactly, records by question and answer.
    """
    trained = {record.question for record in splits["train"]}
    warnings = []
    for name, consequence in _OVERLAPS.items():
        shared = sum(record.question in trained for record in splits[name])
        if shared:
            warnings.append(
                _sentence(shared, len(splits[name]), f"{name} questions", f"in the training split too, {consequence}")
            )
    for name, records in splits.items():
        if repeated := len(records) - len(set(records)):
            warnings.append(_sentence(repeated, len(records), f"{name} records", "repetitions of an earlier one."))
    return warnings


def _sentence(count: int, total: int, what: str, state: str) -> str:
    share = f"All {total:,}" if count == total else f"{count:,} of {total:,}"
    return f"{share} {what} {'is' if count == 1 else 'are'} {state}"
