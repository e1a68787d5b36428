"""The test records of further tasks."""

from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.task_errors import errors_of_task
from surogate_bench_trainer.data.records import ScoredRecord
from surogate_bench_trainer.prepare.checks import check_answers
from surogate_bench_trainer.prepare.sources import load_test
from surogate_bench_trainer.prepare.splitting import scored_records, with_scorable_test


def task_records(sweep: RecipeSweep, task: str) -> list[ScoredRecord]:
    """Return the questions and answers that a further task scores; empty if it has its own data.

    Args:
        sweep: The sweep.
        task: Name of the task.

    Raises:
        ConfigError: there are none, or an answer cannot be scored.
        TransientError: the hub cannot be reached.
    """
    own = sweep.of_task(task)
    if "data" in own.evaluation.keep_from_task:
        return []
    with errors_of_task(sweep.evaluation, task):
        records = scored_records(with_scorable_test({"train": [], "test": load_test(own.data)}, needed=True))
        check_answers(records)
    return records
