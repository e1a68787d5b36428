"""The test records of further tasks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.task_errors import errors_of_task
from surogate_bench_trainer.data.records import ScoredRecord
from surogate_bench_trainer.prepare.dataset.checks import check_answers, check_prompts
from surogate_bench_trainer.prepare.dataset.sources import load_test
from surogate_bench_trainer.prepare.dataset.splitting import require_answers, scored_records

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TaskRecords = Mapping[str, Sequence[ScoredRecord]]
"""Questions and answers by further task, without the tasks that have their own."""


def task_records(sweep: RecipeSweep) -> TaskRecords:
    """Return the questions and answers that the sweep has for its further tasks.

    Raises:
        ConfigError: there are too few, or an answer cannot be scored.
        TransientError: the hub cannot be reached.
    """
    found = {}
    for entry in sweep.evaluation.tasks:
        if entry.data is not None:
            with errors_of_task(sweep.evaluation, entry.name):
                found[entry.name] = _records(sweep.of_task(entry.name))
    return found


def _records(sweep: RecipeSweep) -> list[ScoredRecord]:
    test = load_test(sweep.data)
    require_answers(test, remedy="Give records with question and answer, or let the task use its own: leave data out.")
    records = scored_records({"test": test})
    check_answers(records, sweep.evaluation)
    return records


def check_task_prompts(tasks: TaskRecords, tokenizer: "PreTrainedTokenizerBase", sweep: RecipeSweep) -> set[int]:
    """Check the prompts of further tasks, and return the set of token ids in them.

    Raises:
        ConfigError: one is too long for the server, or the chat template fails on it.
    """
    used = set[int]()
    for name, records in tasks.items():
        with errors_of_task(sweep.evaluation, name):
            used.update(*check_prompts(records, tokenizer, sweep.of_task(name), shots=0))
    return used
