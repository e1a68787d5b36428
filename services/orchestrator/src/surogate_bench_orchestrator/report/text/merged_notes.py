"""What merging changed, in a sentence, and what the marks in its table mean."""

from collections.abc import Iterator, Sequence

from surogate_bench_orchestrator.report.model.merged import MergedCell, MergedRow
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import Way
from surogate_bench_orchestrator.report.text.formats import interval_of_points, listed, p_text, plural, points, seeds
from surogate_bench_orchestrator.report.text.matrix_notes import dagger_note

_CHANCE = 0.05


def sentence_of(rows: Sequence[MergedRow], ways: Sequence[Way]) -> str:
    """Describe in a sentence what merging changed."""
    compared = [
        (f"{row.title} {_served(cell, ways)}", found)
        for row in rows
        for cell in row.cells
        if (found := cell.versus_unmerged) is not None
    ]
    if not compared:
        return ""
    by_delta = sorted(compared, key=lambda each: each[1].delta)
    ends = " to ".join(f"{_change(found)} with {name}" for name, found in dict([by_delta[0], by_delta[-1]]).items())
    return (
        f"Merging the adapter into its base changed the accuracy by {ends}, against the same adapter unmerged and "
        f"served the same way; {_tested(compared)}."
    )


def _served(cell: MergedCell, ways: Sequence[Way]) -> str:
    under = cell.merged.served_under
    titles = {way.served_under: way.title for way in ways}
    return "served as published" if under is None else f"served under {titles[under]}"


def _change(found: Comparison) -> str:
    return f"{points(found.delta)} points (95 % interval {interval_of_points(found)})"


def _tested(compared: Sequence[tuple[str, Comparison]]) -> str:
    """Return the results of tests over seeds and questions, then what is not tested."""
    tested = [(name, p) for name, found in compared if (p := found.p_adjusted) is not None]
    alone = {name: found for name, found in compared if found.p_adjusted is None}
    parts = [_results(tested)] if tested else []
    if alone:
        numbers = {found.seeds for found in alone.values()}
        of = seeds(next(iter(numbers))) if len(numbers) == 1 and any(numbers) else "one seed or adapter each"
        subject = f"{listed(list(alone))}, " if tested else ""
        parts.append(f"{subject}with {of}: another may give other differences")
    return "; ".join(parts)


def _results(tested: Sequence[tuple[str, float]]) -> str:
    clear = [f"{name}, {p_text(p)}" for name, p in tested if p < _CHANCE]
    tests = f"{len(tested)} paired {plural('test', len(tested))} over seeds and questions (Holm-adjusted)"
    return f"of {tests}, these show a difference: {listed(clear)}" if clear else f"none of {tests} shows a difference"


def footnotes(rows: Sequence[MergedRow], ways: Sequence[Way]) -> Iterator[str]:
    """Explain marks, and cells without a score."""
    for row in rows:
        for cell in row.cells:
            name = f"{row.title} merged, {_served(cell, ways)}"
            if (found := cell.versus_unmerged) is not None and not found.of_all_seeds:
                yield dagger_note(name, "itself unmerged", found)
            if cell.merged.reason:
                yield f"{name} {cell.merged.state}: {cell.merged.reason}"
