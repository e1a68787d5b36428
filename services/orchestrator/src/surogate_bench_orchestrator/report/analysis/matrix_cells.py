"""Cells of the matrix *trained under* times *served under*, before they are compared."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.domain.tasks import way_of_serving
from surogate_bench_orchestrator.report.analysis.records import EvalRecord, RunRecord, SweepRecords
from surogate_bench_orchestrator.report.analysis.rows import NoResultReasons, not_yet
from surogate_bench_orchestrator.report.analysis.scores import score_seeds
from surogate_bench_orchestrator.report.model.scores import RowState
from surogate_bench_orchestrator.report.model.served import ServedCell
from surogate_bench_orchestrator.report.model.summary import Row


@dataclass(frozen=True, slots=True)
class Source:
    """A row of the summary and the runs behind it."""

    row: Row
    runs: tuple[RunRecord, ...]

    @property
    def ways(self) -> tuple[str | None, ...]:
        """Ways of serving that the sweep requests for it."""
        return (None, *dict.fromkeys(under for run in self.runs for under in run.under))

    @property
    def merged_ways(self) -> tuple[str | None, ...]:
        """Ways of serving on which the sweep requests its merged adapters."""
        return tuple(dict.fromkeys(under for run in self.runs for under in run.merged))

    def evaluations(
        self, under: str | None, *, merged: bool = False, beside: Collection[int] = (0,)
    ) -> dict[int, EvalRecord]:
        """Return the evaluations by seed; the only one of what has no seed stands for each seed of ``beside``."""
        return {
            seed: evaluation
            for run in self.runs
            if (evaluation := run.evaluation_on(under, merged=merged)) is not None
            for seed in (beside if run.seed is None else (run.seed,))
        }


def trained_under(row: Row) -> str | None:
    """Return the recipe that a row's adapter was trained under; None for the base model, and where it is not known."""
    return row.foreign.trained_under if row.foreign else row.recipe


def row_family(row: Row, under: str | None) -> str:
    """Return the family in which the tests of a row against the same adapters served differently are adjusted."""
    if row.is_base:
        return "base"
    return "own" if under is not None and under == trained_under(row) else f"under {under}"


def imported(sources: Iterable[Source]) -> frozenset[str]:
    """Return the keys of the rows that are one imported adapter each."""
    return frozenset(source.row.key for source in sources if source.row.is_imported)


def sources_of(rows: Sequence[Row], records: SweepRecords) -> list[Source]:
    """Return the rows of a summary with their runs."""
    return [Source(row, tuple(run for run in records.every_run() if _is_of(run, row))) for row in rows]


def _is_of(run: RunRecord, row: Row) -> bool:
    if row.recipe is None:
        return run.name == row.key
    return run.recipe == row.recipe and row.seed in {None, run.seed}


def make_cell(
    source: Source, under: str | None, missing: NoResultReasons, sweep: RecipeSweep, *, merged: bool = False
) -> ServedCell:
    """Make the cell of a row and a way of serving, without comparisons.

    Args:
        source: The row.
        under: Recipe that the base was served under; None for the base as published.
        missing: Why runs have no result.
        sweep: What was requested.
        merged: Whether its adapters were merged into the base.
    """
    if under is None and not merged:
        return _published(source.row)
    states = [(run, *_state(run, under, missing, merged=merged)) for run in source.runs]
    incomplete = [(run, state, why) for run, state, why in states if why]
    state: RowState = incomplete[0][1] if incomplete else "succeeded"
    several = len(states) > 1
    reason = "; ".join(f"seed {run.seed}: {why}" if several else why for run, _, why in incomplete)
    found = {
        run.seed: evaluation
        for run, _, why in states
        if not why and (evaluation := run.evaluation_on(under, merged=merged))
    }
    scored = score_seeds(found)
    if scored.problem:
        state, reason = "failed", scored.problem
    return ServedCell(
        served_under=under,
        state=state,
        reason=reason,
        seeds=scored.seeds,
        seeds_scored=scored.evaluations,
        score=scored.score,
        many_empty=scored.score is not None and scored.score.largest_empty_share > sweep.evaluation.max_empty_fraction,
        kept=scored.kept,
        versus_published=None,
        versus_reference=None,
    )


def _published(row: Row) -> ServedCell:
    return ServedCell(
        served_under=None,
        state=row.state,
        reason=row.reason,
        seeds=row.seeds,
        seeds_scored=row.seeds_scored,
        score=row.score,
        many_empty=row.many_empty,
        kept=row.kept,
        versus_published=None,
        versus_reference=None,
    )


def _state(run: RunRecord, under: str | None, missing: NoResultReasons, *, merged: bool) -> tuple[RowState, str]:
    served = run.served(under, merged=merged)
    if served and served.damage:
        return "failed", f"its stored results are damaged: {served.damage}"
    if served and served.evaluation is not None:
        return "succeeded", ""
    if ended := missing.of(run):
        state, failure = ended
        return state, _reason(failure, way_of_serving(under, merged=merged))
    return "pending", not_yet(run)


def _reason(failure: Failure, way: str) -> str:
    """Return why there is no result for a way of serving, where the run may have ended with that of another."""
    return str(failure) if failure.way in {"", way} else f"not scored; the run ended with {failure}"
