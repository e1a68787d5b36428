"""Rows of the summary: the base model, every recipe or foreign trainer over its seeds, every run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from surogate_bench.errors import PermanentError
from surogate_bench.results import ForeignTrainResult
from surogate_bench.specs import ForeignAdapter, ForeignTrainer, RecipeEntry, RecipeSweep
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.report.analysis.origins import reused_from
from surogate_bench_orchestrator.report.analysis.records import EvalRecord, RunRecord, SweepRecords
from surogate_bench_orchestrator.report.analysis.scored_data import scored_on
from surogate_bench_orchestrator.report.analysis.scores import Difference, adjusted, difference, score_seeds
from surogate_bench_orchestrator.report.analysis.trainings import training_of_runs
from surogate_bench_orchestrator.report.model.summary import Comparison, Foreign, Row, RowState

BASE_TITLE = "Base model"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoResultReasons:
    """Why runs have no result, by run name."""

    failed: Mapping[str, Failure]
    skipped: Mapping[str, Failure]

    def of(self, run: RunRecord) -> tuple[RowState, Failure] | None:
        """Return how a run ended without a result, and why; None if it has not ended."""
        if failure := self.failed.get(run.name):
            return "failed", failure
        if failure := self.skipped.get(run.name):
            return "skipped", failure
        return None


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
    adapter: ForeignAdapter | None = None
    trainer: ForeignTrainer | None = None

    @property
    def is_base(self) -> bool:
        return self.recipe is None and self.adapter is None


def build_rows(records: SweepRecords, sweep: RecipeSweep, missing: NoResultReasons, reference: str | None) -> Rows:
    """Make every row; ``reference`` is the recipe that the others are compared with."""
    groups = _groups(records, sweep)
    per_run = _run_groups(records, sweep) if len(sweep.seeds) > 1 else []
    over_seeds, problems = _with_comparisons(groups, missing, reference, sweep)
    single, single_problems = _with_comparisons(
        [*[group for group in groups if group.is_base], *per_run], missing, reference, sweep
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
    foreign = [(run, run.adapter) for run in records.runs if run.adapter is not None]
    return [
        *(_Group(key=run.name, title=BASE_TITLE, recipe=None, seed=None, runs=(run,)) for run in base),
        *(
            _Group(
                key=each.name,
                title=each.title,
                recipe=each.name,
                seed=None,
                runs=records.of_recipe(each.name),
                trainer=_as_trainer(each),
            )
            for each in sweep.trained
        ),
        *(_Group(key=run.name, title=run.name, recipe=None, seed=None, runs=(run,), adapter=it) for run, it in foreign),
    ]


def _run_groups(records: SweepRecords, sweep: RecipeSweep) -> list[_Group]:
    trained = {each.name: each for each in sweep.trained}
    return [
        _Group(
            key=run.name,
            title=f"{trained[run.recipe].title}, seed {run.seed}",
            recipe=run.recipe,
            seed=run.seed,
            runs=(run,),
            trainer=_as_trainer(trained[run.recipe]),
        )
        for run in records.runs
        if run.recipe is not None
    ]


def _as_trainer(trained: RecipeEntry | ForeignTrainer) -> ForeignTrainer | None:
    return trained if isinstance(trained, ForeignTrainer) else None


def _with_comparisons(
    groups: Sequence[_Group], missing: NoResultReasons, reference: str | None, sweep: RecipeSweep
) -> tuple[list[Row], list[tuple[str | None, str]]]:
    plain = {group.key: _row(group, missing, sweep) for group in groups}
    scored = [group for group in groups if not group.is_base and plain[group.key].score is not None]
    title = plain[reference].title if reference in plain else ""
    references = _evaluations(run for group in groups if group.recipe == reference for run in group.runs if reference)
    to_reference, unlike_reference = _differences(
        [group for group in scored if group.recipe is None or group.recipe != reference],
        references,
        title or (reference or ""),
        foreign_seeds=tuple(references),
    )
    base = next((run.evaluation for group in groups if group.is_base for run in group.runs), None)
    every_seed = {sweep.seeds[0], *(run.seed for group in scored for run in group.runs if run.seed is not None)}
    to_base, unlike_base = _differences(
        scored,
        {} if base is None else dict.fromkeys(every_seed, base),
        "the base model",
        foreign_seeds=sweep.seeds[:1],
    )
    versus_reference, versus_base = adjusted(to_reference), adjusted(to_base)
    beside = plain[reference].seeds if reference in plain else None
    return [
        row.model_copy(
            update={
                "versus_reference": _beside(versus_reference.get(key), row, beside),
                "versus_base": _beside(versus_base.get(key), row, None),
                "unlike_reference": key in unlike_reference,
                "unlike_base": key in unlike_base,
            }
        )
        for key, row in plain.items()
    ], [(plain[key].recipe, sentence) for unlike in (unlike_reference, unlike_base) for key, sentence in unlike.items()]


def _beside(found: Comparison | None, row: Row, others: tuple[int, ...] | None) -> Comparison | None:
    """Record whether a difference is that of the accuracies next to it, which are over these seeds.

    ``others`` is None where the other side has one accuracy for every seed: the base model, or, in rows of single runs,
    the reference's run of the same seed.
    """
    if found is None:
        return None
    of_row = row.is_imported or found.seeds == row.seeds
    return found.model_copy(update={"of_all_seeds": of_row and others in {None, found.seeds}})


def _differences(
    groups: Iterable[_Group], reference: Mapping[int, EvalRecord], title: str, *, foreign_seeds: Iterable[int]
) -> tuple[dict[str, Difference], dict[str, str]]:
    """Return differences to a reference by key, and sentences about rows that cannot be compared with it."""
    found, unlike = dict[str, Difference](), dict[str, str]()
    for group in groups:
        try:
            ours = _evaluations(group.runs, foreign_seeds)
            one = difference(ours, reference, is_of_adapter=group.adapter is not None)
        except PermanentError as error:
            unlike[group.key] = f"{group.title} is not compared with {title}: {error}."
            continue
        if one is not None:
            found[group.key] = one
    return found, unlike


def _evaluations(runs: Iterable[RunRecord], foreign_seeds: Iterable[int] = ()) -> dict[int, EvalRecord]:
    """Return evaluations by seed; the only one of a foreign adapter is compared with each of the others'."""
    found = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    by_seed = {run.seed: evaluation for run, evaluation in found if run.seed is not None}
    foreign = [evaluation for run, evaluation in found if run.adapter is not None]
    return by_seed | {seed: evaluation for evaluation in foreign for seed in foreign_seeds}


def _row(group: _Group, missing: NoResultReasons, sweep: RecipeSweep) -> Row:
    states = [_state(run, missing) for run in group.runs]
    incomplete = [(run, state, why) for run, (state, why) in zip(group.runs, states, strict=True) if why]
    several = len(group.runs) > 1
    reason = "; ".join(f"seed {run.seed}: {why}" if several else why for run, _, why in incomplete)
    state: RowState = incomplete[0][1] if incomplete else "succeeded"
    sound = [run for run, (_, why) in zip(group.runs, states, strict=True) if not why]
    scored = score_seeds({run.seed: run.evaluation for run in sound if run.evaluation is not None})
    if scored.problem:
        state, reason = "failed", scored.problem
    trained = [run.train for run in group.runs if run.train is not None]
    return Row(
        key=group.key,
        title=group.title,
        recipe=group.recipe,
        seed=group.seed,
        seeds=scored.seeds,
        seeds_scored=scored.evaluations,
        state=state,
        reason=reason,
        score=scored.score,
        training=training_of_runs(trained) if trained else None,
        versus_reference=None,
        versus_base=None,
        many_empty=scored.score is not None and scored.score.largest_empty_share > sweep.evaluation.max_empty_fraction,
        kept=scored.kept,
        scored=data[0] if len(data := scored_on(sound, sweep)) == 1 else None,
        reused_from=reused_from(group.runs),
        foreign=_foreign(group),
    )


def _foreign(group: _Group) -> Foreign | None:
    if group.trainer is not None:
        hashes = {run.train.result.adapter_sha256 for run in group.runs if run.train is not None}
        image = group.trainer.image if any(_ran_in_image(run) for run in group.runs) else None
        return Foreign(
            source=f"{group.trainer.label} (image {image})" if image else group.trainer.label,
            trained_under=group.trainer.trained_under,
            adapter_sha256=next(iter(hashes)) if len(hashes) == 1 else None,
        )
    if group.adapter is None:
        return None
    imported = next((run.imported.result for run in group.runs if run.imported), None)
    return Foreign(
        source=imported.source if imported else group.adapter.label,
        trained_under=group.adapter.trained_under,
        adapter_sha256=imported.adapter_sha256 if imported else None,
    )


def _ran_in_image(run: RunRecord) -> bool:
    result = run.train.result if run.train else None
    return isinstance(result, ForeignTrainResult) and result.image is not None


def _state(run: RunRecord, missing: NoResultReasons) -> tuple[RowState, str]:
    if run.damage:
        return "failed", f"its stored results are damaged: {run.damage}"
    if run.evaluation is not None:
        return "succeeded", ""
    if ended := missing.of(run):
        state, failure = ended
        return state, str(failure)
    return "pending", not_yet(run)


def not_yet(run: RunRecord) -> str:
    """Return what a run without a result waits for."""
    made = run.train is not None or run.imported is not None or (run.recipe is None and run.adapter is None)
    waiting_for = "evaluated" if made else "imported" if run.adapter else "trained"
    return f"not {waiting_for} yet"
