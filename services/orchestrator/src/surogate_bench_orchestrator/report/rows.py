"""Rows of the summary: the base model, every recipe over its seeds, every run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from surogate_bench.errors import PermanentError
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.report.origins import reused_from
from surogate_bench_orchestrator.report.records import EvalRecord, RunRecord, SweepRecords, TrainRecord
from surogate_bench_orchestrator.report.scores import Difference, adjusted, difference, score
from surogate_bench_orchestrator.report.scoring import scored_on
from surogate_bench_orchestrator.report.summary import Comparison, Row, RowState, Score, Training

BASE_TITLE = "Base model"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResultReasons:
    """Why runs have no result, by run name."""

    failed: Mapping[str, str]
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows of a report, and what was found while comparing them."""

    over_seeds: tuple[Row, ...]
    per_run: tuple[Row, ...]
    not_compared: tuple[str, ...]
    """Sentences: which rows could not be compared, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The runs behind one row."""

    key: str
    title: str
    recipe: str | None
    seed: int | None
    runs: tuple[RunRecord, ...]


def build_rows(records: SweepRecords, sweep: RecipeSweep, missing: NoResultReasons, reference: str | None) -> Rows:
    """Make every row; ``reference`` is the recipe that the others are compared with."""
    groups = _groups(records, sweep)
    per_run = _run_groups(records, sweep) if len(sweep.seeds) > 1 else []
    over_seeds, problems = _with_comparisons(groups, missing, reference, sweep)
    single, single_problems = _with_comparisons(
        [*[group for group in groups if group.recipe is None], *per_run], missing, reference, sweep
    )
    return Rows(
        over_seeds=tuple(over_seeds),
        per_run=tuple(row for row in single if row.recipe is not None),
        not_compared=tuple(
            sentence
            for recipe, sentence in (*problems, *single_problems)
            if (recipe, sentence) in problems or recipe not in dict(problems)
        ),
    )


def _groups(records: SweepRecords, sweep: RecipeSweep) -> list[_Group]:
    base = [] if records.base is None else [records.base]
    return [_Group(key=run.name, title=BASE_TITLE, recipe=None, seed=None, runs=(run,)) for run in base] + [
        _Group(key=recipe.name, title=recipe.title, recipe=recipe.name, seed=None, runs=records.of_recipe(recipe.name))
        for recipe in sweep.recipes
    ]


def _run_groups(records: SweepRecords, sweep: RecipeSweep) -> list[_Group]:
    titles = {recipe.name: recipe.title for recipe in sweep.recipes}
    return [
        _Group(
            key=run.name,
            title=f"{titles[run.recipe]}, seed {run.seed}",
            recipe=run.recipe,
            seed=run.seed,
            runs=(run,),
        )
        for run in records.runs
        if run.recipe is not None
    ]


def _with_comparisons(
    groups: Sequence[_Group], missing: NoResultReasons, reference: str | None, sweep: RecipeSweep
) -> tuple[list[Row], list[tuple[str | None, str]]]:
    plain = {group.key: _row(group, missing, sweep) for group in groups}
    scored = [group for group in groups if group.recipe is not None and plain[group.key].score is not None]
    title = plain[reference].title if reference in plain else ""
    to_reference, unlike_reference = _differences(
        [group for group in scored if group.recipe != reference],
        _evaluations(run for group in groups if group.recipe == reference for run in group.runs),
        title or (reference or ""),
    )
    base = next((run.evaluation for group in groups if group.recipe is None for run in group.runs), None)
    every_seed = {run.seed for group in scored for run in group.runs if run.seed is not None}
    to_base, unlike_base = _differences(
        scored, {} if base is None else dict.fromkeys(every_seed, base), "the base model"
    )
    versus_reference, versus_base = adjusted(to_reference), adjusted(to_base)
    beside = plain[reference].seeds if reference in plain else None
    return [
        row.model_copy(
            update={
                "versus_reference": _beside(versus_reference.get(key), row.seeds, beside),
                "versus_base": _beside(versus_base.get(key), row.seeds, None),
                "unlike_reference": key in unlike_reference,
                "unlike_base": key in unlike_base,
            }
        )
        for key, row in plain.items()
    ], [(plain[key].recipe, sentence) for unlike in (unlike_reference, unlike_base) for key, sentence in unlike.items()]


def _beside(found: Comparison | None, seeds: tuple[int, ...], others: tuple[int, ...] | None) -> Comparison | None:
    """Record whether a difference is that of the accuracies beside it, which are over these seeds.

    ``others`` is None where the other side has one accuracy for every seed: the base model, or, in rows of single runs,
    the reference's run of the same seed.
    """
    if found is None:
        return None
    return found.model_copy(update={"of_all_seeds": found.seeds == seeds and others in {None, found.seeds}})


def _differences(
    groups: Iterable[_Group], reference: Mapping[int, EvalRecord], title: str
) -> tuple[dict[str, Difference], dict[str, str]]:
    """Return differences to a reference by key, and sentences about rows that cannot be compared with it."""
    found, unlike = dict[str, Difference](), dict[str, str]()
    for group in groups:
        try:
            one = difference(_evaluations(group.runs), reference)
        except PermanentError as error:
            unlike[group.key] = f"{group.title} is not compared with {title}: {error}."
            continue
        if one is not None:
            found[group.key] = one
    return found, unlike


def _evaluations(runs: Iterable[RunRecord]) -> dict[int, EvalRecord]:
    return {run.seed: run.evaluation for run in runs if run.seed is not None and run.evaluation is not None}


def _row(group: _Group, missing: NoResultReasons, sweep: RecipeSweep) -> Row:
    states = [_state(run, missing) for run in group.runs]
    incomplete = [(run, state, why) for run, (state, why) in zip(group.runs, states, strict=True) if why]
    several = len(group.runs) > 1
    reason = "; ".join(f"seed {run.seed}: {why}" if several else why for run, _, why in incomplete)
    state: RowState = incomplete[0][1] if incomplete else "succeeded"
    sound = [run for run, (_, why) in zip(group.runs, states, strict=True) if not why]
    scored: Score | None = None
    try:
        evaluations = [run.evaluation for run in sound if run.evaluation is not None]
        scored = score(evaluations) if evaluations else None
    except PermanentError as error:
        state, reason = "failed", str(error)
    trained = [run.train for run in group.runs if run.train is not None]
    return Row(
        key=group.key,
        title=group.title,
        recipe=group.recipe,
        seed=group.seed,
        seeds=tuple(sorted(run.seed for run in sound if run.seed is not None)) if scored else (),
        seeds_scored=len(sound) if scored else 0,
        state=state,
        reason=reason,
        score=scored,
        training=_training(trained) if trained else None,
        versus_reference=None,
        versus_base=None,
        many_empty=scored is not None and scored.largest_empty_share > sweep.evaluation.max_empty_fraction,
        scored=data[0] if len(data := scored_on(sound, sweep)) == 1 else None,
        reused_from=reused_from(group.runs),
    )


def _state(run: RunRecord, missing: NoResultReasons) -> tuple[RowState, str]:
    if run.damage:
        return "failed", f"its stored results are damaged: {run.damage}"
    if run.evaluation is not None:
        return "succeeded", ""
    if run.name in missing.failed:
        return "failed", missing.failed[run.name] or "no reason was given"
    if run.name in missing.skipped:
        return "skipped", missing.skipped[run.name] or "no reason was given"
    waiting_for = "evaluated" if run.train is not None or run.recipe is None else "trained"
    return "pending", f"not {waiting_for} yet"


def _training(records: Sequence[TrainRecord]) -> Training:
    results = [record.result for record in records]
    engines = dict.fromkeys(record.manifest.engine for record in records if record.manifest.engine)
    validations = [result.validation[-1].loss for result in results if result.validation]
    served = [result.served_validation_loss for result in results if result.served_validation_loss is not None]
    covered = [result.covered_share for result in results if result.covered_share is not None]
    seconds = sum(result.train_seconds for result in results)
    tokens = sum(result.tokens for result in results)
    return Training(
        engine=", ".join(engines) or None,
        steps=max(result.steps for result in results),
        tokens=round(tokens / len(results)),
        tokens_per_second=_mean([result.tokens_per_second for result in results]),
        side_by_side=max(result.side_by_side for result in results),
        threads=min(result.threads for result in results),
        train_seconds=seconds / len(results),
        peak_memory_bytes=max(result.peak_memory_bytes for result in results),
        weight_bytes=max(result.weight_bytes for result in results),
        operand_cache_bytes=max(result.operand_cache_bytes for result in results),
        training_weight_bytes=max(result.weight_bytes + result.operand_cache_bytes for result in results),
        covered_share=min(covered) if covered else None,
        final_train_loss=_mean([result.final_train_loss for result in results]),
        last_validation_loss=_mean(validations) if validations else None,
        served_validation_loss=_mean(served) if len(served) == len(results) else None,
        resumed_from_step=max(result.resumed_from_step for result in results),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
