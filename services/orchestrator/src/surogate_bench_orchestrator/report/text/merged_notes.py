"""What merging changed, in a sentence, and what the marks in its table mean."""

from collections.abc import Iterator, Sequence

from surogate_bench_orchestrator.report.model.merged import MergedCell, MergedRow, p_value
from surogate_bench_orchestrator.report.model.scores import Comparison
from surogate_bench_orchestrator.report.model.served import Way
from surogate_bench_orchestrator.report.text.formats import interval_of_points, listed, p_text, plural, points
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
    several = any(found.p_adjusted is not None for _, found in compared)
    scope = "over seeds and questions" if several else "on questions of this kind, for these adapters"
    clear = [(name, p) for name, found in compared if (p := p_value(found)) is not None and p < _CHANCE]
    tests = f"{len(compared)} paired {plural('test', len(compared))} {scope} (Holm-adjusted)"
    if not clear:
        return f"none of {tests} shows a difference"
    return f"of {tests}, these show a difference: {listed([f'{name}, {p_text(p)}' for name, p in clear])}"


def footnotes(rows: Sequence[MergedRow], ways: Sequence[Way]) -> Iterator[str]:
    """Explain marks, and cells without a score."""
    for row in rows:
        for cell in row.cells:
            name = f"{row.title} merged, {_served(cell, ways)}"
            if (found := cell.versus_unmerged) is not None and not found.of_all_seeds:
                yield dagger_note(name, "itself unmerged", found)
            if cell.merged.reason:
                yield f"{name} {cell.merged.state}: {cell.merged.reason}"
