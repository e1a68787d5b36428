"""The second table of the report, once for Markdown and page."""

from collections.abc import Sequence

from surogate_bench_orchestrator.report.model.rows import Row, Training
from surogate_bench_orchestrator.report.model.scores import FLEXIBLE, Score
from surogate_bench_orchestrator.report.model.summary import Summary
from surogate_bench_orchestrator.report.tables.row_columns import (
    CUT_OFF,
    QUESTIONS,
    UNFORMATTED,
    RowColumn,
    header_and_cells,
    of_score,
    of_training,
)
from surogate_bench_orchestrator.report.text import formats


def detail_table(summary: Summary, rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return header and cells, a tuple for each row, of the second table; a column without any figure is left out."""
    return header_and_cells(detail_columns(summary, rows), rows)


def detail_columns(summary: Summary, rows: Sequence[Row]) -> tuple[RowColumn, ...]:
    """Return all columns of the second table."""
    second = "flexible accuracy" if summary.second_metric == FLEXIBLE else summary.second_metric or "second metric"
    tested = any(row.versus_base and row.versus_base.p_adjusted is not None for row in rows)
    return (
        RowColumn(second, of_score(lambda score: formats.fraction(score.flexible_accuracy))),
        QUESTIONS,
        RowColumn("SD between seeds", of_score(lambda score: formats.fraction(score.seed_stddev))),
        RowColumn("empty answers", formats.empty_answers),
        CUT_OFF,
        UNFORMATTED,
        RowColumn("tokens per answer", of_score(_tokens)),
        RowColumn(f"Δ base{' (adjusted p)' if tested else ''}", formats.delta_to_base),
        *_OF_RUNS,
    )


def _tokens(score: Score) -> str:
    return formats.ABSENT if score.tokens_per_answer is None else f"{score.tokens_per_answer:,.1f}"


def _steps(training: Training) -> str:
    return formats.ABSENT if training.steps is None else f"{training.steps:,}"


def _resumed(training: Training) -> str:
    return str(training.resumed_from_step) if training.resumed_from_step else formats.ABSENT


_OF_RUNS = (
    RowColumn("train loss", of_training(lambda training: formats.loss(training.final_train_loss))),
    RowColumn(
        "validation loss (under the recipe)", of_training(lambda training: formats.loss(training.last_validation_loss))
    ),
    RowColumn(
        "validation loss (as served, bf16)", of_training(lambda training: formats.loss(training.served_validation_loss))
    ),
    RowColumn("block weights covered", of_training(lambda training: formats.share(training.covered_share))),
    RowColumn("steps", of_training(_steps)),
    RowColumn("eval time", of_score(lambda score: formats.duration(score.eval_seconds))),
    RowColumn("resumed at step", of_training(_resumed)),
)
