"""The figures of a sweep that metrics export; small, so that they can be kept for every sweep."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from surogate_bench.results import EvalResult
from surogate_bench.specs.evaluation import AS_PUBLISHED
from surogate_bench.stages.manifest import result_of, training_of
from surogate_bench_orchestrator.domain.observed import RunState
from surogate_bench_orchestrator.domain.plan import Run
from surogate_bench_orchestrator.sweep.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFigures:
    """Accuracy of a run on one way of serving."""

    served_under: str
    """The recipe; ``bf16`` for the base as published."""
    merged: bool
    """Whether the adapter was merged into the base."""
    accuracy: float
    stderr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """Accuracy of a run on a further task."""

    task: str
    accuracy: float
    stderr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Results of one run that are in the store; None for all others."""

    recipe: str
    seed: str
    """Empty for the base model."""
    accuracy: float | None
    stderr: float | None
    samples: float | None
    train_seconds: float | None
    eval_seconds: float | None
    final_loss: float | None
    tokens_per_second: float | None
    served: tuple[ServedFigures, ...]
    """Accuracies by way of serving; empty where the sweep requests one way only."""
    tasks: tuple[TaskFigures, ...]
    """Accuracies by further task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFigures:
    """One sweep."""

    sweep: str
    spec_hash: str
    model: str
    task: str
    states: Mapping[str, int]
    """Number of runs by state, for every state."""
    runs: tuple[RunFigures, ...]
    """Runs with a result in the store."""


def figures_of(snapshot: Snapshot) -> SweepFigures:
    """Extract the figures from a snapshot."""
    sweep = snapshot.plan.sweep
    counted = Counter(status.state for status in snapshot.states.values())
    runs = (_run_figures(snapshot, run) for run in snapshot.plan.runs)
    return SweepFigures(
        sweep=sweep.name,
        spec_hash=sweep.spec_hash,
        model=sweep.model.label,
        task=sweep.evaluation.task,
        states={state.value: counted[state] for state in RunState},
        runs=tuple(each for each in runs if each is not None),
    )


def _run_figures(snapshot: Snapshot, run: Run) -> RunFigures | None:
    trained = training_of(snapshot.manifests.get(run.train.name)) if run.train else None
    scored = result_of(snapshot.manifests.get(run.evaluate.name), EvalResult)
    served, tasks = _served(snapshot, run), _of_tasks(snapshot, run)
    if trained is None and scored is None and not served and not tasks:
        return None
    return RunFigures(
        recipe=run.row,
        seed="" if run.seed is None else str(run.seed),
        accuracy=scored.strict.accuracy if scored else None,
        stderr=scored.strict.stderr if scored else None,
        samples=scored.samples if scored else None,
        train_seconds=trained.train_seconds if trained else None,
        eval_seconds=scored.seconds if scored else None,
        final_loss=trained.final_train_loss if trained else None,
        tokens_per_second=trained.tokens_per_second if trained else None,
        served=served,
        tasks=tasks,
    )


def _of_tasks(snapshot: Snapshot, run: Run) -> tuple[TaskFigures, ...]:
    further = {each.further: each.task for each in run.evaluations if each.further is not None}
    results = {name: result_of(snapshot.manifests.get(task.name), EvalResult) for name, task in further.items()}
    return tuple(
        TaskFigures(task=name, accuracy=result.strict.accuracy, stderr=result.strict.stderr)
        for name, result in results.items()
        if result is not None
    )


def _served(snapshot: Snapshot, run: Run) -> tuple[ServedFigures, ...]:
    if len(snapshot.plan.servers) == 1:
        return ()
    primary = [each for each in run.evaluations if each.further is None]
    results = [(each, result_of(snapshot.manifests.get(each.task.name), EvalResult)) for each in primary]
    return tuple(
        ServedFigures(
            served_under=each.under or AS_PUBLISHED,
            merged=each.merged,
            accuracy=result.strict.accuracy,
            stderr=result.strict.stderr,
        )
        for each, result in results
        if result is not None
    )
