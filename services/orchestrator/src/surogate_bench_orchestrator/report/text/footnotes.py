"""What the marks in the tables of rows mean."""

from collections.abc import Iterator, Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.scores import Kept
from surogate_bench_orchestrator.report.model.summary import Comparison, Row
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.endings import near_zero_footnotes
from surogate_bench_orchestrator.report.text.foreign_notes import single_kinds, trained_elsewhere
from surogate_bench_orchestrator.report.text.formats import seeds


def main_footnotes(sweep: RecipeSweep, rows: Sequence[Row], reference: Row | None, metric: str) -> tuple[str, ...]:
    """Explain the marks in the main table of these rows, and accuracies by ``metric`` that are near zero."""
    starred = any(row.versus_reference and formats.significance(row.versus_reference.p_adjusted) for row in rows)
    several = any(len(row.seeds) > 1 for row in rows)
    candidates = [
        "* p < 0.05, ** p < 0.01, *** p < 0.001 over seeds and questions, Holm-adjusted." if starred else "",
        *(_unlike_reference(row, row.versus_reference, reference) for row in rows),
        f"{formats.DOUBLE_DAGGER} One {single_kinds(rows)}: the interval covers questions, not seeds."
        if several and single_kinds(rows)
        else "",
        *_of_titles(rows),
        *near_zero_footnotes(rows, metric),
        many_empty_footnote(sweep, any_marked=any(row.many_empty for row in rows)),
    ]
    return tuple(note for note in candidates if note)


def detail_footnotes(sweep: RecipeSweep, rows: Sequence[Row]) -> tuple[str, ...]:
    """Explain the marks in the table of further figures of these rows."""
    many_empty = many_empty_footnote(sweep, any_marked=any(row.many_empty for row in rows))
    return (*_of_titles(rows), *filter(None, (many_empty,)))


def run_footnotes(sweep: RecipeSweep, rows: Sequence[Row], runs: Sequence[Row]) -> tuple[str, ...]:
    """Explain the marks in the tables of single runs, by the rows that they are part of."""
    of = {run.recipe for run in runs}
    many_empty = many_empty_footnote(sweep, any_marked=any(run.many_empty for run in runs))
    return (
        *_foreign([row for row in rows if row.recipe in of and not row.is_imported]),
        *_not_kept(runs),
        *filter(None, (many_empty,)),
    )


def kept_footnote(title: str, kept: Kept, scored: Sequence[int]) -> str:
    """Explain the mark of a score of which not all answers were kept; empty where they were.

    Args:
        title: What has the score.
        kept: Which were.
        scored: Seeds behind the score.
    """
    if kept.left_out:
        left_out = f"the answers of {seeds(kept.left_out)} were not kept, so the score is that of {seeds(scored)}"
        return f"{formats.PARALLEL} {title}: {left_out}."
    return "" if kept.answers else f"{formats.PARALLEL} {title}: its answers were not kept, so it is not compared."


def many_empty_footnote(sweep: RecipeSweep, *, any_marked: bool) -> str:
    """Explain the mark of scores with many empty answers; empty where none has it."""
    if not any_marked:
        return ""
    of_one = ", of at least one seed" if len(sweep.seeds) > 1 else ""
    return f"{formats.SECTION} More than {empty_limit(sweep)} of the answers are empty{of_one}."


def empty_limit(sweep: RecipeSweep) -> str:
    """Format the share of empty answers above which a score is marked."""
    return f"{100 * sweep.evaluation.max_empty_fraction:g} %"


def _of_titles(rows: Sequence[Row]) -> Iterator[str]:
    yield from _foreign(rows)
    yield from _not_kept(rows)


def _not_kept(rows: Sequence[Row]) -> Iterator[str]:
    return filter(None, (kept_footnote(row.title, row.kept, row.seeds) for row in rows))


def _foreign(rows: Sequence[Row]) -> Iterator[str]:
    return (trained_elsewhere(row, row.foreign) for row in rows if row.foreign)


def _unlike_reference(row: Row, found: Comparison | None, reference: Row | None) -> str:
    if found is None or found.of_all_seeds or reference is None:
        return ""
    return (
        f"{formats.DAGGER} {row.title}: the difference is over {seeds(found.seeds)}, which {reference.title} also has: "
        f"{formats.fraction(found.accuracy)} against {formats.fraction(found.other_accuracy)}. In the table, "
        f"{row.title} is over {seeds(row.seeds)} and {reference.title} over {seeds(reference.seeds)}."
    )
