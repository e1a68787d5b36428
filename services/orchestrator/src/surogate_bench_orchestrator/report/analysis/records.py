"""Read the results of a sweep's stages from the object store, and check them against their digests."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from surogate_bench.contract import METRICS_FILE, SAMPLES_FILE
from surogate_bench.errors import PermanentError
from surogate_bench.layout import BASE_RUN, SweepLayout, run_name
from surogate_bench.results import (
    EvalResult,
    ForeignTrainResult,
    ImportResult,
    MetricsLine,
    PrepareResult,
    SampleLine,
    TrainResult,
)
from surogate_bench.specs import ForeignAdapter, ForeignTrainer, RecipeEntry, RecipeSweep
from surogate_bench.stages.manifest import Manifest, training_of
from surogate_bench.stages.publication import read_file, read_manifest
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.tasks import way_of_serving
from surogate_bench_orchestrator.report.analysis.stage_keys import StageKey

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecord:
    """A finished training stage. ``metrics`` has one line per step and validation, ordered; empty if none were kept."""

    manifest: Manifest
    result: TrainResult | ForeignTrainResult
    metrics: tuple[MetricsLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRecord:
    """A finished import of a foreign adapter."""

    manifest: Manifest
    result: ImportResult


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRecord:
    """A finished evaluation. ``samples`` is empty if none were kept."""

    manifest: Manifest
    result: EvalResult
    samples: tuple[SampleLine, ...]

    @property
    def label(self) -> str:
        """Name of its run and, unless the base was as published, how it was served."""
        way = way_of_serving(self.result.served_under, merged=self.result.merged)
        return f"{self.manifest.run} {way}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRecord:
    """An evaluation of an adapter that is served in another way than on the published base, as far as it is stored."""

    evaluation: EvalRecord | None
    damage: str
    """What is wrong with the stored files; empty if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run in the store; a stage that is not finished is None."""

    name: str
    recipe: str | None
    """Recipe or foreign trainer; None for the base model and for a foreign adapter."""
    seed: int | None
    train: TrainRecord | None
    evaluation: EvalRecord | None
    """The evaluation on the base as published."""
    damage: str
    """What is wrong with the stored files of these two; empty if nothing is."""
    adapter: ForeignAdapter | None = None
    imported: ImportRecord | None = None
    under: Mapping[str, ServedRecord] = field(default_factory=dict)
    """Further evaluations that the sweep requests, by the recipe that the base is served under."""
    merged: Mapping[str | None, ServedRecord] = field(default_factory=dict)
    """Evaluations of the adapter merged into the base, by recipe; None for the merged weights as they are."""
    tasks: Mapping[str, ServedRecord] = field(default_factory=dict)
    """Evaluations on further tasks, on the base as published, by task."""

    def of_task(self, task: str) -> "RunRecord":
        """Return the run as if a further task were the primary one."""
        found = self.tasks[task]
        return replace(self, evaluation=found.evaluation, damage=found.damage, under={}, merged={}, tasks={})

    def served(self, under: str | None, *, merged: bool = False) -> ServedRecord | None:
        """Return the evaluation on one way of serving, and its damage; None if it is not requested."""
        if merged:
            return self.merged.get(under)
        return ServedRecord(evaluation=self.evaluation, damage=self.damage) if under is None else self.under.get(under)

    def evaluation_on(self, under: str | None, *, merged: bool = False) -> EvalRecord | None:
        """Return the evaluation on one way of serving; None if it is not finished, or not requested."""
        served = self.served(under, merged=merged)
        return served.evaluation if served else None

    def stages(self) -> dict[StageKey, Manifest]:
        """Return the manifests of the finished stages."""
        is_foreign = self.train is not None and self.train.manifest.stage == "foreign-train"
        stages: dict[StageKey, TrainRecord | ImportRecord | EvalRecord | None] = {
            StageKey(kind="foreign training" if is_foreign else "training"): self.train,
            StageKey(kind="import"): self.imported,
            StageKey(kind="evaluation"): self.evaluation,
        }
        served = {StageKey(kind="evaluation", under=under): found for under, found in self.under.items()}
        served |= {StageKey(kind="evaluation", under=under, merged=True): each for under, each in self.merged.items()}
        served |= {StageKey(kind="evaluation", task=task): found for task, found in self.tasks.items()}
        stages |= {key: found.evaluation for key, found in served.items()}
        return {key: stage.manifest for key, stage in stages.items() if stage is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRecords:
    """Everything that a sweep has finished."""

    prepare: tuple[Manifest, PrepareResult] | None
    base: RunRecord | None
    """None where the sweep does not score the base model."""
    runs: tuple[RunRecord, ...]
    """Runs in the order of recipes and foreign trainers, then seeds; then foreign adapters."""

    def of_recipe(self, recipe: str) -> tuple[RunRecord, ...]:
        """Return the runs of one recipe or foreign trainer."""
        return tuple(run for run in self.runs if run.recipe == recipe)

    def every_run(self) -> tuple[RunRecord, ...]:
        """Return the base model if it is scored, then every run."""
        return self.runs if self.base is None else (self.base, *self.runs)

    def of_task(self, task: str) -> "SweepRecords":
        """Return the records as if a further task were the primary one."""
        base = None if self.base is None else self.base.of_task(task)
        return replace(self, base=base, runs=tuple(run.of_task(task) for run in self.runs))

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all finished stages."""
        prepared = [] if self.prepare is None else [self.prepare[0]]
        return prepared + [manifest for run in self.every_run() for manifest in run.stages().values()]


def read_records(store: ObjectStore, sweep: RecipeSweep) -> SweepRecords:
    """Read a sweep's finished stages. Damaged files of a run are recorded in it and do not stop the others.

    Raises:
        TransientError: the store is unavailable.
        PermanentError: the prepare stage's manifest cannot be parsed.
    """
    layout = SweepLayout(sweep.name, sweep.spec_hash)
    prepared = read_manifest(store, layout.prepare)
    return SweepRecords(
        prepare=None if prepared is None else (prepared, prepared.require_result(PrepareResult)),
        base=_read_run(store, layout, BASE_RUN, sweep, None) if sweep.evaluation.evaluate_base else None,
        runs=(
            *(
                _read_run(
                    store, layout, run_name(each.name, seed), sweep, _trained_under(each), trained_by=(each.name, seed)
                )
                for each in sweep.trained
                for seed in sweep.seeds
            ),
            *(_read_foreign(store, layout, adapter, sweep) for adapter in sweep.adapters),
        ),
    )


def _trained_under(trained: RecipeEntry | ForeignTrainer) -> str:
    """Return the recipe that adapters of a recipe or foreign trainer are trained under; empty if it is not known."""
    return (trained.trained_under or "") if isinstance(trained, ForeignTrainer) else trained.name


def _read_run(
    store: ObjectStore,
    layout: SweepLayout,
    name: str,
    sweep: RecipeSweep,
    trained_under: str | None,
    *,
    trained_by: tuple[str | None, int | None] = (None, None),
) -> RunRecord:
    """Read a run; ``trained_by`` is its recipe or foreign trainer with its seed."""
    recipe, seed = trained_by
    train, evaluation, damage = None, None, ""
    try:
        train = None if recipe is None else _read_train(store, layout.train(name))
        evaluation = _read_evaluation(store, layout.eval(name), None)
    except PermanentError as error:
        damage = str(error)

    def served(under: str | None = None, *, merged: bool = False, task: str | None = None) -> ServedRecord:
        return _read_served(store, layout.eval(name, under, merged=merged, task=task), under, merged=merged)

    return RunRecord(
        name=name,
        recipe=recipe,
        seed=seed,
        train=train,
        evaluation=evaluation,
        damage=damage,
        under={each: served(each, merged=False) for each in sweep.scored_under(trained_under) if each is not None},
        tasks={each: served(task=each) for each in sweep.evaluation.further_tasks},
        merged={each: served(each, merged=True) for each in sweep.scored_merged(trained_under)},
    )


def _read_served(store: ObjectStore, prefix: str, under: str | None, *, merged: bool) -> ServedRecord:
    try:
        return ServedRecord(evaluation=_read_evaluation(store, prefix, under, merged=merged), damage="")
    except PermanentError as error:
        return ServedRecord(evaluation=None, damage=str(error))


def _read_foreign(store: ObjectStore, layout: SweepLayout, adapter: ForeignAdapter, sweep: RecipeSweep) -> RunRecord:
    run, imported = _read_run(store, layout, adapter.name, sweep, adapter.trained_under or ""), None
    damage = run.damage
    try:
        if manifest := read_manifest(store, layout.train(adapter.name)):
            imported = ImportRecord(manifest=manifest, result=manifest.require_result(ImportResult))
    except PermanentError as error:
        damage = damage or str(error)
    return replace(run, adapter=adapter, imported=imported, damage=damage)


def _read_train(store: ObjectStore, prefix: str) -> TrainRecord | None:
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    # A resumed trainer may have logged a step twice: the last line belongs to the adapter.
    lines = {
        (line.step, line.eval_loss is not None): line
        for line in _lines(store, prefix, manifest, METRICS_FILE, MetricsLine)
    }
    metrics = tuple(lines[key] for key in sorted(lines))
    result = training_of(manifest) or manifest.require_result(TrainResult)
    return TrainRecord(manifest=manifest, result=result, metrics=metrics)


def _read_evaluation(store: ObjectStore, prefix: str, under: str | None, *, merged: bool = False) -> EvalRecord | None:
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    result = manifest.require_result(EvalResult)
    found, expected = _way(result.served_under, merged=result.merged), _way(under, merged=merged)
    if found != expected:
        raise PermanentError(f"{prefix} in {store.url} was served {found}, not {expected}")
    samples = _lines(store, prefix, manifest, SAMPLES_FILE, SampleLine)
    if samples and (len(samples), sum(line.strict_match for line in samples)) != (
        result.samples,
        round(result.strict.accuracy * result.samples),
    ):
        raise PermanentError(f"{prefix}/{SAMPLES_FILE} in {store.url} does not give the accuracy that was recorded")
    return EvalRecord(manifest=manifest, result=result, samples=samples)


def _way(under: str | None, *, merged: bool) -> str:
    return way_of_serving(under, merged=merged).removeprefix("served ") or "as published"


def _lines(store: ObjectStore, prefix: str, manifest: Manifest, name: str, kind: type[_Model]) -> tuple[_Model, ...]:
    if name not in manifest.files:
        return ()
    found = []
    for number, line in enumerate(read_file(store, prefix, manifest, name).splitlines(), start=1):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise PermanentError(f"{prefix}/{name}:{number} in {store.url} cannot be parsed: {error}") from error
    return tuple(found)
