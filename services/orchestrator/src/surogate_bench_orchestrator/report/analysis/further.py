"""Makes the sections on further tasks from their records."""

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.analysis.records import SweepRecords
from surogate_bench_orchestrator.report.analysis.rows import NoResultReasons, build_rows
from surogate_bench_orchestrator.report.analysis.scored_data import metrics_of, scored_on
from surogate_bench_orchestrator.report.model.further import FurtherTask
from surogate_bench_orchestrator.report.model.summary import Row
from surogate_bench_orchestrator.report.text.endings import cut_off_note, unfinished_note
from surogate_bench_orchestrator.report.text.notes import footnotes
from surogate_bench_orchestrator.report.text.scored_data import caption


def build_further(
    records: SweepRecords, sweep: RecipeSweep, missing: NoResultReasons, reference: str | None
) -> tuple[FurtherTask, ...]:
    """Make the tables of further tasks: each as that of the primary task, p values adjusted within it.

    Args:
        records: Results of the sweep.
        sweep: What was requested.
        missing: Why runs have no result.
        reference: The recipe that others are compared with.
    """
    return tuple(
        _further(records.of_task(task), sweep.of_task(task), missing, reference)
        for task in sweep.evaluation.further_tasks
    )


def _further(records: SweepRecords, sweep: RecipeSweep, missing: NoResultReasons, reference: str | None) -> FurtherTask:
    rows = build_rows(records, sweep, missing, reference)
    over_seeds, scored = tuple(map(_untrained, rows.over_seeds)), scored_on(records.every_run(), sweep)
    reference_row = next((row for row in over_seeds if reference and row.recipe == reference), None)
    metric, second_metric = metrics_of(records)
    return FurtherTask(
        task=sweep.evaluation.task,
        metric=metric,
        second_metric=second_metric,
        evaluated_on=caption(sweep, scored, metric),
        scored=scored,
        rows=over_seeds,
        runs=tuple(map(_untrained, rows.per_run)),
        footnotes=footnotes(sweep, over_seeds, reference_row, metric),
        notes=tuple(
            note
            for note in (
                *rows.not_compared,
                cut_off_note(sweep, over_seeds),
                unfinished_note(over_seeds, reference_row),
            )
            if note
        ),
    )


def _untrained(row: Row) -> Row:
    """Leave out the figures of the training, which are those of the main table."""
    return row.model_copy(update={"training": None})
