"""What a reader must know to read the figures right, and what the marks in the tables mean."""

from collections.abc import Sequence
from statistics import NormalDist

from surogate_bench.specs import RecipeSweep
from surogate_bench.statistics import minimal_detectable_difference
from surogate_bench_orchestrator.report import formats
from surogate_bench_orchestrator.report.formats import listed, plural, seeds
from surogate_bench_orchestrator.report.recipe_words import mismatch_details
from surogate_bench_orchestrator.report.seed_spread import seed_spread
from surogate_bench_orchestrator.report.summary import Comparison, Row

_POWER = 0.8


def notes(sweep: RecipeSweep, rows: Sequence[Row], not_compared: Sequence[str]) -> tuple[str, ...]:
    """Notes by what applies to this sweep.

    Args:
        sweep: What was asked for.
        rows: The base model and every recipe over its seeds.
        not_compared: Sentences about rows that could not be compared.
    """
    candidates = (
        _seeds_note(sweep, rows),
        *_sensitivity_notes(rows),
        mismatch_details(sweep.recipes),
        _bytes_note(rows),
        _speed_note(rows),
        _emulation_note(rows),
        _loss_note(sweep),
        _empty_note(rows),
        *not_compared,
    )
    return tuple(note for note in candidates if note)


def footnotes(rows: Sequence[Row], reference: Row | None) -> tuple[str, ...]:
    """Explain the marks that stand in the tables of these rows."""
    tested = any(row.versus_reference and row.versus_reference.p_adjusted is not None for row in rows)
    several = any(len(row.seeds) > 1 for row in rows)
    candidates = [
        "* p < 0.05, ** p < 0.01, *** p < 0.001 over seeds and questions, Holm-adjusted." if tested else "",
        *(_unlike_reference(row, row.versus_reference, reference) for row in rows),
        *(_unlike_base(row, row.versus_base) for row in rows),
        f"{formats.DOUBLE_DAGGER} One seed: the interval covers questions, not seeds."
        if several and any(len(row.seeds) == 1 for row in rows)
        else "",
    ]
    return tuple(note for note in candidates if note)


def _unlike_reference(row: Row, found: Comparison | None, reference: Row | None) -> str:
    if found is None or found.of_all_seeds or reference is None:
        return ""
    return (
        f"{formats.DAGGER} {row.title}: the difference is over {seeds(found.seeds)}, which {reference.title} has too: "
        f"{formats.fraction(found.accuracy)} against {formats.fraction(found.other_accuracy)}. In the table, "
        f"{row.title} is the mean of {seeds(row.seeds)} and {reference.title} of {seeds(reference.seeds)}."
    )


def _unlike_base(row: Row, found: Comparison | None) -> str:
    if found is None or found.of_all_seeds:
        return ""
    return (
        f"{formats.DAGGER} {row.title}: the difference to the base model is over {seeds(found.seeds)} "
        f"({formats.fraction(found.accuracy)} against {formats.fraction(found.other_accuracy)}); the answers of the "
        "other seeds were not kept."
    )


def _seeds_note(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    if len(sweep.seeds) == 1:
        known = seed_spread(sweep, rows)
        return (
            f"Every recipe was trained once ({seeds(sweep.seeds)}): standard errors and intervals cover the choice of "
            "test questions, not initialization and data order, and the same recipe with another seed may differ as "
            f"much as two recipes do here{f' ({known})' if known else ''}. Whether recipes differ takes two or more "
            "seeds: surogate-bench run SWEEP.yaml --seed 0 --seed 1. P values of one seed concern the questions only; "
            "they are in summary.csv and summary.json (p_questions)."
        )
    missing = [
        f"{row.title} {len(row.seeds)} of {len(sweep.seeds)}"
        for row in rows
        if row.score and row.recipe is not None and len(row.seeds) < len(sweep.seeds)
    ]
    return (
        f"Rows are means over {seeds(sweep.seeds)}{f' ({listed(missing)})' if missing else ''}; their intervals cover "
        "seeds and questions, that of the base model, which is not trained, questions only. Differences are taken over "
        "the seeds that both recipes have."
    )


def _sensitivity_notes(rows: Sequence[Row]) -> list[str]:
    """The smallest difference that a test would find, from the least sensitive row; one note for each kind of test."""
    found = [
        (smallest, row, comparison)
        for row in rows
        if row.score and (comparison := row.versus_reference)
        if 0 < (smallest := _detectable(comparison, row.score.samples)) < 1
    ]
    texts = []
    for several in (True, False):
        if kind := [each for each in found if (len(each[2].seeds) > 1) == several]:
            smallest, row, comparison = max(kind, key=lambda each: each[0])
            texts.append(_sensitivity(smallest, row, comparison, alone=len(kind) == 1))
    return texts


def _sensitivity(smallest: float, row: Row, comparison: Comparison, *, alone: bool) -> str:
    n = row.score.samples if row.score else 0
    where = row.title if alone else f"{row.title}, the least sensitive row"
    if len(comparison.seeds) == 1:
        return (
            f"With {n:,} questions and one seed ({n:,} pairs of answers), a paired test finds a difference of "
            f"{100 * smallest:.1f} points between two adapters four times out of five ({where}; before correction for "
            "several comparisons). A difference between recipes has to be larger, since seeds differ too."
        )
    count = len(comparison.seeds)
    return (
        f"“Not significant” is not “equal”: with {n:,} questions and {count} seeds ({n * count:,} pairs of answers) "
        f"and the spread seen here, a paired test finds a true difference of {100 * smallest:.1f} points four times "
        f"out of five ({where}), before correction for several comparisons."
    )


def _detectable(comparison: Comparison, n: int) -> float:
    """Smallest difference found with power 0.8 at a two-sided level of 0.05; infinity where there is none.

    With one seed it follows from the share of questions on which the two disagree, with several from the standard error
    over seeds and questions: half the interval, which holds the quantile of the test, and the quantile of the power.
    """
    if len(comparison.seeds) == 1:
        return minimal_detectable_difference(n, (comparison.only_this + comparison.only_reference) / n, power=_POWER)
    half = max(comparison.high - comparison.delta, comparison.delta - comparison.low)
    return half + NormalDist().inv_cdf(_POWER) * comparison.stderr


def _bytes_note(rows: Sequence[Row]) -> str:
    if not any(row.training for row in rows):
        return ""
    return (
        "Weight bytes are those of the linear layers inside the transformer blocks: as stored, and as held while "
        "training, which adds the low-precision operands that the engine keeps beside the stored weights."
    )


def _speed_note(rows: Sequence[Row]) -> str:
    shared = sorted({(row.training.side_by_side, row.training.threads) for row in rows if row.training}, reverse=True)
    if not shared:
        return ""
    conditions = " or ".join(
        f"{count} trainers side by side with {threads} {plural('thread', threads)} each"
        if count > 1
        else f"one trainer at a time with {threads} {plural('thread', threads)}"
        for count, threads in shared
    )
    return (
        f"Tokens per second and train time were measured with up to {conditions}; they count real tokens, not padding, "
        "and leave validation and checkpoints out."
    )


def _emulation_note(rows: Sequence[Row]) -> str:
    if not any(row.training and row.training.engine and "emulated" in row.training.engine for row in rows):
        return ""
    return (
        "Where the engine is “emulated”, low-precision arithmetic was imitated bit for bit: accuracy and loss are "
        "those of the format, speed and memory are not those of hardware that has it."
    )


def _loss_note(sweep: RecipeSweep) -> str:
    counted = "of the answers only" if sweep.training.loss_on == "completion" else "of prompts and answers"
    return (
        f"Losses count the tokens {counted}. Training and validation losses are computed in the precision of each "
        "recipe, so curves of different recipes differ by their arithmetic too; the validation loss “as served” is "
        "that of the finished adapter on bf16 weights with bf16 products, the same arithmetic for every recipe."
    )


def _empty_note(rows: Sequence[Row]) -> str:
    counts = [f"{row.title} {row.score.empty_answers}" for row in rows if row.score and row.score.empty_answers]
    return f"Empty answers count as wrong: {', '.join(counts)}." if counts else ""
