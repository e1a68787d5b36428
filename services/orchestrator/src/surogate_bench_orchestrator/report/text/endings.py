"""What a reader must know of how answers ended: cut off, empty, or without an answer in the format."""

from collections.abc import Iterator, Sequence

from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.model.scores import STRICT
from surogate_bench_orchestrator.report.model.summary import Comparison, Row, Score
from surogate_bench_orchestrator.report.text import formats

_NEAR_ZERO = 0.05
_MOST = 0.5


def near_zero_footnotes(rows: Sequence[Row], metric: str) -> Iterator[str]:
    """Explain strict accuracies near zero where the answers show why: most have none in the format.

    By another metric there may be no format, nor a second metric that reads answers without it.
    """
    for row in rows if metric == STRICT else ():
        score = row.score
        if score is None or score.accuracy >= _NEAR_ZERO or not score.unformatted_answers:
            continue
        if (score.unformatted_share or 0.0) < _MOST:
            continue
        yield (
            f"{row.title}: {_of_all(row, score, score.unformatted_answers)} answers are not in the format that "
            f"{STRICT} reads, so its accuracy shows that it does not follow the format, and not what it can solve. "
            "Flexible accuracy, which takes the last number in the answer, is "
            f"{formats.fraction(score.flexible_accuracy)}."
        )


def cut_off_note(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    """State how many answers were cut off; empty where none is known to be."""
    counts = [
        f"{row.title} {_of_all(row, row.score, row.score.cut_off_answers)}"
        for row in rows
        if row.score and row.score.cut_off_answers
    ]
    if not counts:
        return ""
    return (
        f"Answers were cut off at {sweep.evaluation.max_gen_toks} tokens (evaluation.max_gen_toks): "
        f"{formats.listed(counts)}. Such an answer is scored by what it contains up to that point."
    )


def unfinished_note(rows: Sequence[Row], reference: Row | None) -> str:
    """Warn of differences no larger than the share of wrong answers that were cut off or empty; empty without any.

    If all those answers of the lower row had been right, it would not be the lower one.
    """
    base = next((row for row in rows if row.is_base), None)
    pairs = [
        f"{row.title} to {other.title}"
        for row in rows
        for other, found in ((reference, row.versus_reference), (base, row.versus_base))
        if other is not None and found is not None and _could_explain(row, other, found)
    ]
    if not pairs:
        return ""
    return (
        f"Cut-off and empty answers alone could explain the differences of {formats.listed(pairs)}: the row with the "
        "lower accuracy has at least as many wrong answers that were cut off or empty. They are in its samples.jsonl; "
        "a larger evaluation.max_gen_toks shows what cut-off answers would have been."
    )


def _could_explain(row: Row, other: Row, found: Comparison) -> bool:
    lower = row if found.delta < 0 else other
    share = lower.score.unfinished_share if lower.score else None
    return found.delta != 0 and share is not None and share >= abs(found.delta)


def _of_all(row: Row, score: Score, count: int) -> str:
    """Format a number of answers, of how many, and their share."""
    total = score.samples * max(1, row.seeds_scored)
    return f"{count:,} of {total:,} ({formats.share(count / total)})"
