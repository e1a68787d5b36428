"""What the report says in sentences: the result, what to bear in mind, and how each recipe works."""

from collections.abc import Sequence

from surogate_bench.recipes import ComputePrecision, Recipe, WeightStorage
from surogate_bench.specs import RecipeSweep
from surogate_bench.statistics import minimal_detectable_difference
from surogate_bench_orchestrator.report import formats
from surogate_bench_orchestrator.report.summary import Comparison, RecipeText, Row

_ALPHA = 0.05

_STORAGE = {
    WeightStorage.BF16: "bf16, 2 bytes per weight",
    WeightStorage.FP8_128X128: "FP8 E4M3 with one fp32 scale per 128×128 tile, 1 byte per weight",
    WeightStorage.NVFP4: "NVFP4: E2M1 with one E4M3 scale per 16 weights and one fp32 scale per tensor, 0.56 bytes "
    "per weight",
    WeightStorage.NF4: "NF4 in blocks of 64 with double quantization (bitsandbytes), 0.52 bytes per weight",
}
_COMPUTE = {
    ComputePrecision.BF16: "bf16 operands in both passes",
    ComputePrecision.FP8_HYBRID: "FP8: E4M3 activations (delayed scaling) and weights forward, E5M2 gradients backward",
    ComputePrecision.NVFP4: "NVFP4: 4-bit operands in blocks of 16, four-over-six scaling forward, stochastic "
    "rounding of gradients",
}


def headline(rows: Sequence[Row], reference: str | None, data: str) -> str:
    """Say the result in two sentences, plainly."""
    base = next((row for row in rows if row.recipe is None and row.score), None)
    scored = [row for row in rows if row.recipe is not None and row.score]
    if not scored:
        return "No recipe has been scored yet. The table says what each run is waiting for or why it ended."
    ours = next((row for row in scored if row.recipe == reference), None)
    if ours is None:
        best = max(scored, key=lambda row: row.score.accuracy if row.score else 0.0)
        return f"{_gain(best, base, data)} There is no unquantized run to compare the others with."
    return f"{_gain(ours, base, data)} {_verdict(scored, ours)}"


def _gain(row: Row, base: Row | None, data: str) -> str:
    assert row.score is not None  # noqa: S101 - callers pass scored rows only
    questions = f"{row.score.samples:,} {data} questions"
    if base is None or base.score is None:
        return f"Fine-tuned with {row.title}, the model solves {formats.percent(row.score.accuracy)} of {questions}."
    return (
        f"Fine-tuning with {row.title} takes the model from {formats.percent(base.score.accuracy)} to "
        f"{formats.percent(row.score.accuracy)} on {questions}."
    )


def _verdict(scored: Sequence[Row], reference: Row) -> str:
    compared = [(row, row.versus_reference) for row in scored if row.versus_reference is not None]
    if not compared:
        return f"Nothing else has been compared with {reference.title} yet."
    worse = [_with_points(row, found) for row, found in compared if _significant(found) and found.delta < 0]
    better = [_with_points(row, found) for row, found in compared if _significant(found) and found.delta > 0]
    alike = [row.title for row, found in compared if not _significant(found)]
    parts = [
        f"{_listed(titles)} {'score' if len(titles) > 1 else 'scores'} significantly {direction}"
        for titles, direction in ((worse, "lower"), (better, "higher"))
        if titles
    ]
    if alike:
        parts.append(f"no significant difference shows for {_listed(alike)}")
    return f"Against {reference.title}, {'; '.join(parts)}."


def _significant(comparison: Comparison) -> bool:
    return comparison.p_adjusted < _ALPHA


def _with_points(row: Row, comparison: Comparison) -> str:
    return f"{row.title} ({formats.points(comparison.delta)} points)"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def notes(sweep: RecipeSweep, rows: Sequence[Row], not_compared: Sequence[str]) -> tuple[str, ...]:
    """What a reader must know to read the figures right, by what applies to this sweep."""
    candidates = (
        _sensitivity_note(rows),
        _seeds_note(sweep),
        _mismatch_note(sweep),
        _speed_note(rows),
        _emulation_note(rows),
        "The loss counts the tokens of the answers only."
        if sweep.training.loss_on == "completion"
        else "The loss counts prompt and answer tokens.",
        _empty_note(rows),
        *not_compared,
    )
    return tuple(note for note in candidates if note)


def _sensitivity_note(rows: Sequence[Row]) -> str:
    shares = [
        (found.only_this + found.only_reference) / (row.score.samples * row.seeds_scored)
        for row in rows
        if row.score and (found := row.versus_reference)
    ]
    if not shares:
        return ""
    n = max(row.score.samples for row in rows if row.score)
    smallest = minimal_detectable_difference(n, sum(shares) / len(shares))
    if not 0 < smallest < 1:
        return ""
    return (
        f"“Not significant” is not “equal”: with {n:,} questions, one seed and the disagreement seen here, a paired "
        f"test finds a true difference of {100 * smallest:.1f} points four times out of five, before correction for "
        "several comparisons."
    )


def _seeds_note(sweep: RecipeSweep) -> str:
    if len(sweep.seeds) == 1:
        return (
            "Every recipe was trained once: the intervals cover the choice of test questions, not the luck of "
            "initialization and data order."
        )
    return f"Rows are means over the seeds {', '.join(map(str, sweep.seeds))}; intervals cover seeds and questions."


def _mismatch_note(sweep: RecipeSweep) -> str:
    titles = [recipe.title for recipe in sweep.recipes if recipe.weight_storage is not WeightStorage.BF16]
    if not titles:
        return ""
    return (
        "All adapters are served on the unquantized base model, so "
        f"{_listed(titles)}, trained on a quantized one, {'include' if len(titles) > 1 else 'includes'} that mismatch."
    )


def _speed_note(rows: Sequence[Row]) -> str:
    shared = sorted({(row.training.side_by_side, row.training.threads) for row in rows if row.training}, reverse=True)
    if not shared:
        return ""
    conditions = " or ".join(
        f"{count} trainers side by side with {threads} {_plural('thread', threads)} each"
        if count > 1
        else f"one trainer at a time with {threads} {_plural('thread', threads)}"
        for count, threads in shared
    )
    return (
        f"Tokens per second and train time were measured with up to {conditions}; they count real tokens, not padding, "
        "and leave validation and checkpoints out."
    )


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _emulation_note(rows: Sequence[Row]) -> str:
    if not any(row.training and row.training.engine and "emulated" in row.training.engine for row in rows):
        return ""
    return (
        "Where the engine is “emulated”, low-precision arithmetic was imitated bit for bit: accuracy and loss are "
        "those of the format, speed and memory are not those of hardware that has it."
    )


def _empty_note(rows: Sequence[Row]) -> str:
    counts = [f"{row.title} {row.score.empty_answers}" for row in rows if row.score and row.score.empty_answers]
    return f"Empty answers count as wrong: {', '.join(counts)}." if counts else ""


def recipe_text(recipe: Recipe) -> RecipeText:
    """Describe one recipe: how weights are kept, how products are computed, what deviates from the default."""
    details = []
    if recipe.skip_first_layers or recipe.skip_last_layers:
        details.append(f"The first {recipe.skip_first_layers} and last {recipe.skip_last_layers} blocks stay in bf16.")
    if recipe.compute is ComputePrecision.NVFP4:
        details.append(
            "Weights in 16×16 blocks shared by both passes (profile “paper”)."
            if recipe.fp4_profile == "paper"
            else "Weights in 1×16 blocks, requantized for the backward pass (profile “surogate”)."
        )
    if recipe.compute is ComputePrecision.FP8_HYBRID:
        details.append(
            f"Scales look back {recipe.fp8_amax_history_length:,} steps"
            + (f", margin {recipe.fp8_margin}." if recipe.fp8_margin else ".")
        )
    return RecipeText(
        name=recipe.name,
        title=recipe.title,
        storage=_STORAGE[recipe.weight_storage],
        compute=_COMPUTE[recipe.compute],
        details=" ".join(details),
    )
