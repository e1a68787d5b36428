"""Find finished stages of other sweeps whose results are valid for stages of a sweep."""

import logging
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from surogate_bench.contract import INPUT_SCALES_FILE, SPEC_FILE
from surogate_bench.errors import PermanentError
from surogate_bench.layout import BASE_RUN, SWEEPS, SweepLayout, manifest_key, run_name
from surogate_bench.machine.packages import version_in
from surogate_bench.results import CheckResult, EvalResult, ImportResult, PrepareResult, ScoredData
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.identity import (
    SCORING_VERSION,
    SERVING_VERSION,
    VLLM_VERSION,
    WayOfServing,
    evaluation_identity,
    foreign_training_identity,
    training_identity,
    trains_alike,
    uses_input_scales,
)
from surogate_bench.stages.manifest import Manifest, result_of, training_of
from surogate_bench.stages.publication import read_manifest, read_result
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.plan import Evaluation, Plan, Run
from surogate_bench_orchestrator.domain.tasks import Task

_log = logging.getLogger(__name__)

_Way = tuple[str | None, bool, str | None]
"""Recipe that the base is served under, whether the adapter is merged into it, and the further task that is scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedStages:
    """Prefixes of finished stages by identity, the oldest first."""

    trainings: Mapping[str, tuple[str, ...]]
    evaluations: Mapping[str, tuple[str, ...]]


class ReusableStages:
    """Finds stages of other sweeps, or of earlier versions of the sweep, that its tasks can refer to.

    The store is searched once, when the first result is needed.

    Args:
        store: Holds the results of all sweeps.
        plan: The plan of the sweep.
    """

    def __init__(self, store: ObjectStore, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self._stages: FinishedStages | None = None
        self._searched: set[str] = set()
        self._found: dict[str, str] = {}

    def find(self, manifests: Mapping[str, Manifest]) -> Mapping[str, str]:
        """Return the prefixes of equal stages by task name, for the tasks that are not done.

        Args:
            manifests: Manifests of the sweep's finished stages by task name. Without that of the prepare stage, the
                contents of model and data are not known, and nothing is found.

        Raises:
            TransientError: the store is unavailable.
        """
        prepared = result_of(manifests.get(self._plan.prepare.name), PrepareResult)
        if prepared is None or not self._plan.reuse:
            return {}
        for run in self._plan.runs:
            self._find_training(run, prepared, manifests)
            for evaluation in run.evaluations:
                self._find_evaluation(run, evaluation, prepared, manifests)
        return {name: source for name, source in self._found.items() if name not in manifests}

    def forget(self, task_name: str) -> None:
        """Drop a stage that no longer exists, so that the task is computed."""
        self._found.pop(task_name, None)

    def _find_training(self, run: Run, prepared: PrepareResult, manifests: Mapping[str, Manifest]) -> None:
        task = run.train
        if task is None or run.seed is None or not self._is_new(task.name, manifests):
            return
        sweep, recipe = self._plan.sweep, run.recipe
        if recipe is not None:
            identity = training_identity(sweep, recipe, run.seed, prepared)
            candidates = self._finished().trainings.get(identity or "", ())
            self._keep_first(task.name, candidates, lambda manifest: trains_alike(manifest, recipe, prepared))
        elif run.trainer is not None:
            identity = foreign_training_identity(sweep, run.trainer, run.seed, prepared)
            candidates = self._finished().trainings.get(identity or "", ())
            self._keep_first(task.name, candidates, lambda manifest: manifest.stage == "foreign-train")

    def _find_evaluation(
        self, run: Run, evaluation: Evaluation, prepared: PrepareResult, manifests: Mapping[str, Manifest]
    ) -> None:
        adapter = _content_of(manifests.get(run.train.name)) if run.train else None
        if (run.train is not None and adapter is None) or not self._is_new(evaluation.task.name, manifests):
            return
        sweep, prepared = self._plan.sweep.of_task(evaluation.further), prepared.of_task(evaluation.further)
        check = manifests.get(self._plan.check_of(evaluation).name)
        if check is None and "data" in sweep.evaluation.keep_from_task:
            return  # the check will find what the task scores
        checked = result_of(check, CheckResult)
        scored = checked.scored if checked else None
        under = sweep.recipe(evaluation.under) if evaluation.under else None
        scales = _input_scales(self._store, run.train) if run.train and uses_input_scales(under) else None
        way = WayOfServing(under=under, input_scales_sha256=scales, merged=evaluation.merged)
        identity = evaluation_identity(sweep, prepared, adapter, way, scored=scored)
        candidates = self._finished().evaluations.get(identity or "", ())
        self._keep_first(evaluation.task.name, candidates, _is_scored_alike)

    def _is_new(self, task_name: str, manifests: Mapping[str, Manifest]) -> bool:
        return task_name not in manifests and task_name not in self._searched

    def _keep_first(self, task_name: str, prefixes: tuple[str, ...], is_alike: Callable[[Manifest], bool]) -> None:
        for prefix in prefixes:
            try:
                manifest = read_manifest(self._store, prefix)
            except PermanentError as error:
                _log.debug("%s is not reused: %s", prefix, error)
                continue
            if manifest is not None and is_alike(manifest):
                self._found[task_name] = prefix
                break
        self._searched.add(task_name)  # only now: an unavailable store is searched again

    def _finished(self) -> FinishedStages:
        if self._stages is None:
            self._stages = find_finished_stages(self._store, leave_out=self._plan.layout.root)
        return self._stages


def find_finished_stages(store: ObjectStore, *, leave_out: str = "") -> FinishedStages:
    """Search a store for finished stages, with one listing and two reads for each sweep.

    Args:
        store: The store.
        leave_out: Root of a sweep to skip.

    Raises:
        TransientError: the store is unavailable.
    """
    written = {info.key: info.last_modified for info in store.list(f"{SWEEPS}/")}
    trainings: dict[str, list[str]] = {}
    evaluations: dict[str, list[str]] = {}
    for layout, sweep, prepared in prepared_sweeps(store, written, leave_out=leave_out):
        for run, identity in _training_identities(sweep, prepared):
            trained = layout.train(run)
            if manifest_key(trained) in written:
                trainings.setdefault(identity or trained, []).append(trained)
        for run, scored in _scored_runs(sweep, layout, written):
            adapter = _NO_ADAPTER if run == BASE_RUN else _adapter(store, layout.train(run))
            if adapter is None:
                continue
            for (under, merged, task), prefix in scored.items():
                recipe, scales = sweep.recipe(under) if under else None, adapter.input_scales_sha256
                way = WayOfServing(under=recipe, input_scales_sha256=scales, merged=merged)
                of_task = sweep.of_task(task)
                data = _own_data(store, of_task, prefix)
                found = evaluation_identity(of_task, prepared.of_task(task), adapter.sha256, way, scored=data)
                evaluations.setdefault(found or prefix, []).append(prefix)

    def oldest_first(prefixes: list[str]) -> tuple[str, ...]:
        return tuple(sorted(prefixes, key=lambda prefix: (written[manifest_key(prefix)], prefix)))

    return FinishedStages(
        trainings={identity: oldest_first(prefixes) for identity, prefixes in trainings.items()},
        evaluations={identity: oldest_first(prefixes) for identity, prefixes in evaluations.items()},
    )


def prepared_sweeps(
    store: ObjectStore, keys: Mapping[str, object], *, leave_out: str = ""
) -> Iterator[tuple[SweepLayout, RecipeSweep, PrepareResult]]:
    """Yield the sweeps in a store whose model and data were prepared, and that this version can read.

    Args:
        store: The store.
        keys: Its objects under ``sweeps/``.
        leave_out: Root of a sweep to skip.

    Raises:
        TransientError: the store is unavailable.
    """
    for layout in _layouts(keys):
        known = None if layout.root == leave_out else _read_sweep(store, layout)
        if known is not None:
            yield layout, *known


def _layouts(keys: Mapping[str, object]) -> Iterator[SweepLayout]:
    """Yield the sweeps whose spec and prepared data exist."""
    for key in keys:
        parts = key.split("/")
        if len(parts) == 4 and parts[3] == SPEC_FILE:  # noqa: PLR2004 - sweeps/name/hash/spec.json
            layout = SweepLayout(parts[1], parts[2])
            if manifest_key(layout.prepare) in keys:
                yield layout


def _read_sweep(store: ObjectStore, layout: SweepLayout) -> tuple[RecipeSweep, PrepareResult] | None:
    """Return spec and prepare result; None if this version cannot read them, and the results are not reused."""
    try:
        sweep = RecipeSweep.model_validate_json(store.get(layout.spec) or b"")
        prepared = read_result(store, layout.prepare, PrepareResult)
    except (ValidationError, PermanentError) as error:
        _log.debug("results under %s are not reused: %s", layout.root, error)
        return None
    return None if prepared is None else (sweep, prepared)


def _training_identities(sweep: RecipeSweep, prepared: PrepareResult) -> Iterator[tuple[str, str | None]]:
    for recipe in sweep.recipes:
        for seed in sweep.seeds:
            yield run_name(recipe.name, seed), training_identity(sweep, recipe, seed, prepared)
    for trainer in sweep.trainers:
        for seed in sweep.seeds:
            yield run_name(trainer.name, seed), foreign_training_identity(sweep, trainer, seed, prepared)


def _scored_runs(
    sweep: RecipeSweep, layout: SweepLayout, written: Container[str]
) -> Iterator[tuple[str, Mapping[_Way, str]]]:
    """Yield runs that have evaluations in the store: prefixes by what was scored in which way."""
    trained = ((run_name(each.name, seed), each.name) for each in sweep.recipes for seed in sweep.seeds)
    others = ((run_name(each.name, seed), each.trained_under or "") for each in sweep.trainers for seed in sweep.seeds)
    imported = ((each.name, each.trained_under or "") for each in sweep.adapters)
    for run, recipe in ((BASE_RUN, None), *trained, *others, *imported):
        ways: list[_Way] = [(under, False, None) for under in sweep.scored_under(recipe)]
        ways += [(None, False, task) for task in sweep.evaluation.further_tasks]
        ways += [(under, True, None) for under in sweep.scored_merged(recipe)]
        prefixes = {way: layout.eval(run, way[0], merged=way[1], task=way[2]) for way in ways}
        scored = {way: prefix for way, prefix in prefixes.items() if manifest_key(prefix) in written}
        if scored:
            yield run, scored


@dataclass(frozen=True, slots=True)
class _Adapter:
    """Digests of an adapter, and of the scales that its training run stored."""

    sha256: str | None
    input_scales_sha256: str | None


_NO_ADAPTER = _Adapter(None, None)
"""Stands for the adapter of the unmodified base model."""


def _adapter(store: ObjectStore, prefix: str) -> _Adapter | None:
    try:
        manifest = read_manifest(store, prefix)
    except PermanentError:
        return None
    sha256 = _content_of(manifest)
    if manifest is None or sha256 is None:
        return None
    scales = manifest.files.get(INPUT_SCALES_FILE)
    return _Adapter(sha256, scales.sha256 if scales else None)


def _own_data(store: ObjectStore, sweep: RecipeSweep, prefix: str) -> ScoredData | None:
    """Return the records that a finished evaluation scored; None where they are the sweep's, or not known."""
    if "data" not in sweep.evaluation.keep_from_task:
        return None
    try:
        scored = result_of(read_manifest(store, prefix), EvalResult)
    except PermanentError:
        return None
    return scored.scored if scored else None


def _content_of(manifest: Manifest | None) -> str | None:
    """Return the content hash of an adapter that was trained or imported; None if it is not known."""
    made = training_of(manifest) or result_of(manifest, ImportResult)
    return made.adapter_sha256 if made else None


def _input_scales(store: ObjectStore, training: Task) -> str | None:
    """Return the digest of the scales that a finished training run kept, which manifests in memory leave out."""
    found = _adapter(store, training.output) if training.output else None
    return found.input_scales_sha256 if found else None


def _is_scored_alike(manifest: Manifest) -> bool:
    """Return whether the locked version of vLLM and the current procedures would give an evaluation's result."""
    found = version_in(manifest.versions, "vLLM")
    served_alike = found is None or found.partition("+")[0] == VLLM_VERSION
    scored = result_of(manifest, EvalResult)
    if scored is not None and (scored.served_under is not None or scored.merged):
        served_alike = served_alike and (scored.serving_version or 1) == SERVING_VERSION
    return served_alike and manifest.procedure_version == SCORING_VERSION
