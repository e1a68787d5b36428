"""The test records of further tasks."""

from surogate_bench.specs import RecipeSweep
from surogate_bench_trainer.data.records import ScoredRecord
from surogate_bench_trainer.prepare.checks import check_answers
from surogate_bench_trainer.prepare.sources import load_test
from surogate_bench_trainer.prepare.splitting import scored_records, with_scorable_test


def task_records(sweep: RecipeSweep) -> list[ScoredRecord]:
    """Return the questions and answers that a task scores; empty if it has its own data.

    Args:
        sweep: The sweep as of that task (:meth:`surogate_bench.specs.RecipeSweep.of_task`).

    Raises:
        ConfigError: there are none, or an answer cannot be scored.
        TransientError: the hub cannot be reached.
    """
    if "data" in sweep.evaluation.keep_from_task:
        return []
    records = scored_records(with_scorable_test({"train": [], "test": load_test(sweep.data)}, needed=True))
    check_answers(records)
    return records
