"""Format figures, the same in every output. Minus signs are U+2212; an absent figure is a dash."""

from collections.abc import Iterable, Sequence
from math import isfinite

from surogate_bench_orchestrator.report.model.served import ServedCell
from surogate_bench_orchestrator.report.model.summary import Comparison, Row, Score, Summary

ABSENT = "–"
DAGGER, DOUBLE_DAGGER, SECTION = "\N{DAGGER}", "\N{DOUBLE DAGGER}", "\N{SECTION SIGN}"
PILCROW = "\N{PILCROW SIGN}"
"""Marks rows of adapters that other software trained."""
PARALLEL = "\N{DOUBLE VERTICAL LINE}"
"""Marks scores of seeds whose answers were not all kept."""
MARKS = (DAGGER, DOUBLE_DAGGER, SECTION, PILCROW, PARALLEL, "*")
"""What a footnote begins with that explains a mark."""
_SIGNIFICANCE = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_MINUTE, _HOUR = 60.0, 3600.0
_BINARY = 1024.0
_SHORT = 28


def for_marks(footnotes: Iterable[str], shown: Iterable[str]) -> tuple[str, ...]:
    """Return the footnotes without those whose mark is in none of the texts shown."""
    texts = tuple(shown)
    return tuple(note for note in footnotes if note[0] not in MARKS or any(note[0] in text for text in texts))


def fraction(value: float | None) -> str:
    """Format with four decimals, as in the published table."""
    return ABSENT if value is None else f"{value:.4f}"


def accuracy(row: Row) -> str:
    """Format a row's accuracy, or its state; \N{SECTION SIGN} where many of its answers are empty."""
    if row.score is None:
        return row.state
    return fraction(row.score.accuracy) + (SECTION if row.many_empty else "")


def score_marks(cell: ServedCell) -> str:
    """Return the marks of an accuracy on one way of serving: \N{SECTION SIGN}, \N{DOUBLE VERTICAL LINE}."""
    return (SECTION if cell.many_empty else "") + (PARALLEL if cell.kept.is_incomplete else "")


def empty_answers(row: Row) -> str:
    """Format the number of empty answers and their share; \N{SECTION SIGN} where they are many."""
    if row.score is None:
        return ABSENT
    count, total = row.score.empty_answers, row.score.samples * max(1, row.seeds_scored)
    return count_of(count, count / total) + (SECTION if row.many_empty else "")


def count_of(count: int | None, of_all: float | None) -> str:
    """Format a number of answers and their share."""
    if count is None or of_all is None:
        return ABSENT
    return f"{count:,} ({share(of_all)})" if count else "0"


def share(value: float | None) -> str:
    """Format a share in percent; 100 % only for the whole, 0 % only for nothing."""
    if value is None:
        return ABSENT
    if value >= 1:
        return "100 %"
    tenths = min(999, max(1, round(1000 * value))) if value > 0 else 0
    return f"{tenths / 10:.1f} %"


def signed(value: float) -> str:
    """Format a difference of fractions: four decimals and always a sign."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """Format a fraction as percent, for sentences."""
    return f"{100 * value:.1f} %"


def percents_apart(one: float, other: float) -> tuple[str, str]:
    """Format two different fractions as percent, with as many digits as show that they differ."""
    digits = 1
    while f"{100 * one:.{digits}f}" == f"{100 * other:.{digits}f}":
        digits += 1
    return f"{100 * one:.{digits}f} %", f"{100 * other:.{digits}f} %"


def points(value: float) -> str:
    """Format a difference of fractions in percentage points, for sentences."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval_of_points(comparison: Comparison) -> str:
    """Format the 95 % interval of a difference in percentage points, for sentences."""
    return f"{points(comparison.low)} to {points(comparison.high)}"


def interval(score: Score, digits: int = 4) -> str:
    """Format the 95 % interval."""
    return f"{score.low:.{digits}f}\N{EN DASH}{score.high:.{digits}f}"


def significance(p_value: float | None) -> str:
    """Return asterisks: * below 0.05, ** below 0.01, *** below 0.001; none where no recipes are tested."""
    return next((marks for limit, marks in _SIGNIFICANCE if p_value is not None and p_value < limit), "")


def p_text(p_value: float) -> str:
    """Format a p value with its significant digits, and enough of them to be on the right side of every threshold."""
    if p_value < 0.001:  # noqa: PLR2004 - smaller values are not distinguished
        return "p < 0.001"
    digits = 3 if p_value < 0.1 else 2  # noqa: PLR2004 - two digits suffice
    while any((round(p_value, digits) < limit) != (p_value < limit) for limit, _ in _SIGNIFICANCE):
        digits += 1
    return f"p = {p_value:.{digits}f}"


def difference(comparison: Comparison) -> str:
    """Format a difference, without p: \N{DAGGER} where it is not that of the accuracies next to it; asterisks."""
    unlike = "" if comparison.of_all_seeds else DAGGER
    return signed(comparison.delta) + unlike + significance(comparison.p_adjusted)


def delta(row: Row, summary: Summary) -> str:
    """Format the difference to the reference with its marks, without p; ``reference`` for the reference itself."""
    if row.unlike_reference:
        return "not compared"
    if row.versus_reference is None:
        return "reference" if _is_reference(row, summary) else ABSENT
    return difference(row.versus_reference)


def delta_with_p(row: Row, summary: Summary) -> str:
    """Format the difference to the reference with its marks and, where recipes are tested, the adjusted p value."""
    if row.versus_reference is None or row.versus_reference.p_adjusted is None:
        return delta(row, summary)
    return f"{delta(row, summary)} ({p_text(row.versus_reference.p_adjusted)})"


def delta_to_base(row: Row) -> str:
    """Format the difference to the base model and, where a recipe is tested, the adjusted p value."""
    if (found := row.versus_base) is None:
        return "not compared" if row.unlike_base else ABSENT
    tested = "" if found.p_adjusted is None else f" ({p_text(found.p_adjusted)})"
    return f"{signed(found.delta)}{tested}"


def row_interval(row: Row, summary: Summary, digits: int = 4) -> str:
    """Format the 95 % interval of a row's accuracy; \N{DOUBLE DAGGER} where it covers less than in other rows."""
    if row.score is None:
        return ABSENT
    return interval(row.score, digits) + (DOUBLE_DAGGER if covers_less(row, summary) else "")


def covered(rows: Sequence[Row]) -> str:
    """Return what the intervals of the recipes' accuracies cover."""
    return "seeds and questions" if any(len(row.seeds) > 1 for row in rows) else "questions"


def covers_less(row: Row, summary: Summary) -> bool:
    """Return whether a recipe's interval covers questions only while those of other recipes cover seeds too."""
    several = any(len(other.seeds) > 1 for other in summary.rows)
    of_one = row.is_imported or (row.recipe is not None and row.seed is None and len(row.seeds) == 1)
    return several and of_one


def _is_reference(row: Row, summary: Summary) -> bool:
    return row.score is not None and row.recipe is not None and row.recipe == summary.reference


def rate(row: Row) -> str:
    """Format tokens per second."""
    found = row.training.tokens_per_second if row.training else None
    return ABSENT if found is None else f"{found:,.0f}"


def size(count: int | None) -> str:
    """Format bytes with a binary unit and three significant digits."""
    if count is None:
        return ABSENT
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < _BINARY:
            break
        value, unit = value / _BINARY, larger
    digits = 0 if unit == "B" or value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004 - three significant digits
    return f"{value:.{digits}f} {unit}"


def duration(seconds: float | None) -> str:
    """Format a duration: seconds below a minute, then minutes and seconds, then hours and minutes."""
    if seconds is None:
        return ABSENT
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def loss(value: float | None) -> str:
    """Format a loss in nats per token; ``diverged`` where it is not finite."""
    if value is None:
        return ABSENT
    return f"{value:.3f}" if isfinite(value) else "diverged"


def short(text: str) -> str:
    """Shorten a name to at most 28 characters on one line, for charts."""
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}\N{HORIZONTAL ELLIPSIS}"


def title(row: Row, summary: Summary) -> str:
    """Return a row's name, with the number of seeds where some are missing."""
    return _marked_title(row.title, row, summary)


def short_title(row: Row, summary: Summary) -> str:
    """Return a row's name as :func:`title`, with the name itself shortened to at most 28 characters, for charts."""
    return _marked_title(short(row.title), row, summary)


def _marked_title(name: str, row: Row, summary: Summary) -> str:
    name = name if row.foreign is None else f"{name} {PILCROW}"
    name = name if not row.kept.is_incomplete else f"{name} {PARALLEL}"
    if row.recipe is None or row.seed is not None or row.seeds_scored in {0, len(summary.seeds)}:
        return name
    return f"{name} ({row.seeds_scored} of {len(summary.seeds)} seeds)"


def listed(items: Sequence[object]) -> str:
    """Format an enumeration in a sentence: a, b and c."""
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def seeds(numbers: Sequence[int]) -> str:
    """Format seeds in a sentence: seed 0; seeds 0 and 1."""
    return f"{plural('seed', len(numbers))} {listed(numbers)}"


def plural(noun: str, count: int) -> str:
    """Return the singular or plural of a noun."""
    return noun if count == 1 else f"{noun}s"
