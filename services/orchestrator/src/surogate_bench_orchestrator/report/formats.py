"""How figures are written, the same in every output. Minus signs are real ones; absent figures are a dash."""

from math import isfinite

from surogate_bench_orchestrator.report.summary import Comparison, Row, Score, Summary

ABSENT = "–"
_SIGNIFICANCE = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_MINUTE, _HOUR = 60.0, 3600.0
_BINARY = 1024.0
_SHORT = 28


def fraction(value: float | None) -> str:
    """Four decimals, as in the published table."""
    return ABSENT if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference of fractions: four decimals and always a sign."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A fraction as percent, for sentences."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of fractions in percentage points, for sentences."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval(score: Score, digits: int = 4) -> str:
    """The 95 % interval."""
    return f"{score.low:.{digits}f}\N{EN DASH}{score.high:.{digits}f}"


def delta_interval(comparison: Comparison) -> str:
    """The 95 % interval of a difference."""
    return f"{signed(comparison.low)} to {signed(comparison.high)}"


def significance(p_value: float) -> str:
    """Asterisks: * below 0.05, ** below 0.01, *** below 0.001."""
    return next((marks for limit, marks in _SIGNIFICANCE if p_value < limit), "")


def p_text(p_value: float) -> str:
    """A p value with as many digits as carry meaning."""
    if p_value < 0.001:  # noqa: PLR2004 - smaller ones are not told apart
        return "p < 0.001"
    return f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"  # noqa: PLR2004 - two digits suffice


def delta(row: Row, summary: Summary) -> str:
    """Difference to the reference with its mark, without p; says so where the row is the reference."""
    if row.versus_reference is None:
        return "reference" if _is_reference(row, summary) else ABSENT
    return signed(row.versus_reference.delta) + significance(row.versus_reference.p_adjusted)


def delta_with_p(row: Row, summary: Summary) -> str:
    """Difference to the reference with its mark and the adjusted p value."""
    if row.versus_reference is None:
        return delta(row, summary)
    return f"{delta(row, summary)} ({p_text(row.versus_reference.p_adjusted)})"


def _is_reference(row: Row, summary: Summary) -> bool:
    return row.score is not None and row.recipe is not None and row.recipe == summary.reference


def rate(row: Row) -> str:
    """Tokens per second."""
    return ABSENT if row.training is None else f"{row.training.tokens_per_second:,.0f}"


def size(count: int | None) -> str:
    """Bytes with a binary unit, three significant digits."""
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
    """Seconds below a minute, then minutes and seconds, then hours and minutes."""
    if seconds is None:
        return ABSENT
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def loss(value: float | None) -> str:
    """A loss in nats per token; says so where it is no number any more."""
    if value is None:
        return ABSENT
    return f"{value:.3f}" if isfinite(value) else "diverged"


def short(text: str) -> str:
    """A name of at most 28 characters on one line, for charts."""
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[: _SHORT - 1]}\N{HORIZONTAL ELLIPSIS}"


def title(row: Row, summary: Summary) -> str:
    """A row's name; with the number of seeds where some are missing."""
    if row.recipe is None or row.seed is not None or row.seeds_scored in {0, len(summary.seeds)}:
        return row.title
    return f"{row.title} ({row.seeds_scored} of {len(summary.seeds)} seeds)"
