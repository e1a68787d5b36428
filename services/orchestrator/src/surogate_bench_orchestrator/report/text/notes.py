"""What a reader must know to interpret the figures."""

from collections.abc import Sequence
from statistics import NormalDist

from surogate_bench.recipes.precisions import EMULATED
from surogate_bench.specs import RecipeSweep
from surogate_bench.statistics import minimal_detectable_difference
from surogate_bench_orchestrator.report.model.served import Served
from surogate_bench_orchestrator.report.model.summary import Comparison, Row
from surogate_bench_orchestrator.report.text import formats
from surogate_bench_orchestrator.report.text.endings import cut_off_note, unfinished_note
from surogate_bench_orchestrator.report.text.footnotes import empty_limit
from surogate_bench_orchestrator.report.text.foreign_notes import (
    foreign_note,
    trainers_note,
    unknown_recipe_note,
)
from surogate_bench_orchestrator.report.text.formats import listed, plural, seeds
from surogate_bench_orchestrator.report.text.mismatch import mismatch_details, quantized_rows

_POWER = 0.8


def notes(
    sweep: RecipeSweep,
    rows: Sequence[Row],
    further: Sequence[str],
    matrix: Served | None = None,
    *,
    reference: Row | None = None,
) -> tuple[str, ...]:
    """Return the notes that apply to this sweep.

    Args:
        sweep: What was requested.
        rows: The base model and every recipe over its seeds.
        further: Notes about how and where stages were made, and rows that could not be compared.
        matrix: Accuracies by way of serving; None where there is one way only.
        reference: The row that others are compared with.
    """
    candidates = (
        _seeds_note(sweep, rows),
        foreign_note(rows),
        trainers_note(rows),
        *_sensitivity_notes(rows),
        mismatch_details(quantized_rows(sweep, rows, matrix), matrix),
        unknown_recipe_note(rows),
        _covered_note(rows),
        _padded_note(rows),
        _bytes_note(rows),
        _speed_note(rows),
        _emulation_note(rows),
        _loss_note(sweep, rows),
        _empty_note(sweep, rows),
        cut_off_note(sweep, rows),
        unfinished_note(rows, reference),
        *further,
    )
    return tuple(note for note in candidates if note)


def _seeds_note(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    if len(sweep.seeds) == 1:
        (seed,) = sweep.seeds
        return (
            f"Every recipe was trained once (seed {seed}): standard errors, intervals and p values (p_questions in "
            "summary.csv and summary.json) reflect the choice of test questions, not initialization and data order. To "
            f"compare recipes, add a seed: surogate-bench run SWEEP.yaml --seed {seed} --seed {seed + 1}."
        )
    scored = [row for row in rows if row.score and row.recipe is not None]
    missing = [
        f"{row.title} {len(row.seeds)} of {len(sweep.seeds)}" for row in scored if len(row.seeds) < len(sweep.seeds)
    ]
    if missing and not any(len(row.seeds) > 1 for row in scored):
        return (
            f"No recipe has been scored with more than one of {seeds(sweep.seeds)} yet: intervals cover questions, not "
            "seeds, and differences are those of a seed that both recipes have."
        )
    return _means_note(sweep, missing, base=any(row.is_base and row.score for row in rows))


def _means_note(sweep: RecipeSweep, missing: Sequence[str], *, base: bool) -> str:
    return (
        f"Rows of recipes are means over {seeds(sweep.seeds)}"
        + (", as far as they have been scored" if missing else "")
        + ", and their intervals cover seeds and questions"
        + ("; the base model is not trained, so its interval covers questions only." if base else ".")
        + (
            f" Seeds are missing ({listed(missing)}): differences are taken over those that both recipes have."
            if missing
            else ""
        )
    )


def _sensitivity_notes(rows: Sequence[Row]) -> list[str]:
    """Return the smallest difference that each kind of test detects, from the least sensitive row."""
    found = [
        (smallest, row, comparison)
        for row in rows
        if row.score and (comparison := row.versus_reference)
        if not (row.is_imported and len(comparison.seeds) > 1)  # not tested
        if 0 < (smallest := _detectable(comparison, row.score.samples)) < 1
    ]
    one = "one common seed" if any(len(row.seeds) > 1 for row in rows) else "one seed"
    texts = []
    for several in (True, False):
        if kind := [each for each in found if (len(each[2].seeds) > 1) == several]:
            smallest, row, comparison = max(kind, key=lambda each: each[0])
            texts.append(_sensitivity(smallest, row, comparison, one=one, alone=len(kind) == 1))
    return texts


def _sensitivity(smallest: float, row: Row, comparison: Comparison, *, one: str, alone: bool) -> str:
    n = row.score.samples if row.score else 0
    where = row.title if alone else f"{row.title}, the least sensitive row"
    if len(comparison.seeds) == 1:
        return (
            f"With {n:,} questions and {one} ({n:,} pairs of answers), a paired test detects a difference of "
            f"{100 * smallest:.1f} points between two adapters with a power of 80 % ({where}; before correction for "
            "several comparisons). Recipes must differ by more, because seeds differ."
        )
    count = len(comparison.seeds)
    return (
        f"“Not significant” is not “equal”: with {n:,} questions and {count} seeds ({n * count:,} pairs of answers) "
        f"and the spread observed here, a paired test detects a true difference of {100 * smallest:.1f} points with a "
        f"power of 80 % ({where}; before correction for several comparisons)."
    )


def _detectable(comparison: Comparison, n: int) -> float:
    """Return the smallest difference detected with power 0.8 at a two-sided level of 0.05; infinity if there is none.

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
        "Weight bytes are those of the linear layers inside the transformer blocks; “in training” adds the "
        "low-precision operands that the engine keeps in addition to the stored weights."
    )


def _speed_note(rows: Sequence[Row]) -> str:
    trained = [row.training for row in rows if row.training]
    shared = {(each.side_by_side, each.processes or 1, each.threads) for each in trained if each.threads is not None}
    if not shared:
        return ""
    conditions = " or ".join(_conditions(*each) for each in sorted(shared, reverse=True))
    return (
        f"Tokens per second and train time were measured with up to {conditions}; padding, validation and checkpoints "
        "do not count."
    )


def _conditions(trainers: int, processes: int, threads: int) -> str:
    who = f"{trainers} trainers side by side" if trainers > 1 else "one trainer at a time"
    resources = f"{threads} {plural('thread', threads)}"
    if processes > 1:
        resources = f"{processes} processes of {resources}"
    return f"{who} with {resources}" + (" each" if trainers > 1 else "")


def _emulation_note(rows: Sequence[Row]) -> str:
    if not any(row.training and row.training.engine and EMULATED in row.training.engine for row in rows):
        return ""
    return (
        "Where the engine is “emulated”, low-precision arithmetic was computed in software, bit for bit: accuracy and "
        "loss are those of the format, speed and memory are not those of hardware that supports it."
    )


def _loss_note(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    counted = "of the answers only" if sweep.training.loss_on == "completion" else "of prompts and answers"
    served = any(row.training and row.training.served_validation_loss is not None for row in rows)
    return (
        f"Losses count the tokens {counted}. They are computed in the precision of each recipe, so curves of "
        "different recipes differ by their arithmetic too"
        + (
            "; the validation loss “as served” is that of the finished adapter on bf16 weights with bf16 products, for "
            "every recipe."
            if served
            else "."
        )
    )


def _covered_note(rows: Sequence[Row]) -> str:
    parts = [
        f"{row.title} {formats.share(row.training.covered_share)}"
        for row in rows
        if row.training and row.training.covered_share is not None and row.training.covered_share < 1
    ]
    if not parts:
        return ""
    kept = [
        f"{row.title} keeps {listed(row.training.kept_layers)} in bf16, because the block size does not divide their "
        "dimensions."
        for row in rows
        if row.training and row.training.kept_layers
    ]
    covered = "Some recipes cover only part of the weights inside the transformer blocks; the rest stays in bf16"
    return " ".join([f"{covered}: {listed(parts)}.", *kept])


def _padded_note(rows: Sequence[Row]) -> str:
    return " ".join(
        f"{row.title} pads the last blocks of {listed(row.training.padded_layers)} with zeros, because the block size "
        "does not divide their dimensions."
        for row in rows
        if row.training and row.training.padded_layers
    )


def _empty_note(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    counts = [f"{row.title} {_empty(row)}" for row in rows if row.score and row.score.empty_answers]
    if not counts:
        return ""
    marked = [row.title for row in rows if row.many_empty]
    return f"Empty answers count as wrong: {listed(counts)}." + (
        f" Above {empty_limit(sweep)} (evaluation.max_empty_fraction; {listed(marked)}, marked {formats.SECTION}) they "
        "alone could explain a difference."
        if marked
        else ""
    )


def _empty(row: Row) -> str:
    """Format the number of empty answers, of how many, and the worst seed where there are several."""
    assert row.score is not None  # noqa: S101 - callers pass scored rows only
    total = row.score.samples * max(1, row.seeds_scored)
    worst = f", with one seed {formats.share(row.score.largest_empty_share)}" if row.seeds_scored > 1 else ""
    return f"{row.score.empty_answers:,} of {total:,} ({formats.share(row.score.empty_answers / total)}{worst})"
