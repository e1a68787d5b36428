"""A snapshot as rows, for display and for JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from surogate_bench.layout import sweep_of
from surogate_bench.processes.progress import Activity, Progress
from surogate_bench.results import EvalResult, ForeignTrainResult, ImportResult, PrepareResult, TrainResult
from surogate_bench.specs.evaluation import AS_PUBLISHED
from surogate_bench.stages.manifest import result_of, training_of
from surogate_bench.stages.requests import ServeRequest
from surogate_bench_orchestrator.domain.observed import Failure, Observed, RunState, RunStatus, failure_of
from surogate_bench_orchestrator.domain.plan import Run
from surogate_bench_orchestrator.domain.serving import server_work
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, further_of, is_merged, stage_of, under_of
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

WARNING = "Warning"
"""Reason of a row that is done but has a warning."""


class ServiceState(StrEnum):
    """States of a stage that runs share, beside Pending, Failed and Skipped, which :class:`RunState` has."""

    STARTING = "Starting"
    RUNNING = "Running"
    DONE = "Done"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressRow:
    """Progress of one run, or of one of the stages that all runs share."""

    name: str
    state: str
    detail: str = ""
    """Current activity within the state."""
    failure: Failure | None = None
    """Why it or its previous attempt failed, or why it waits; the warning of a stage that is done."""
    attempt: int = 0
    step: int = 0
    total: int = 0
    """Steps (training) or requests (evaluation); 0 while unknown."""
    loss: float | None = None
    tokens_per_second: float | None = None
    elapsed_s: float | None = None
    eta_s: float | None = None
    """Estimated seconds until the current stage ends; set by :mod:`surogate_bench_orchestrator.sweep.pace` only."""
    accuracy: float | None = None
    """Accuracy served as published."""
    stderr: float | None = None
    served_accuracies: Mapping[str, float] = field(default_factory=dict)
    """Accuracies by the recipe that the base was served under."""
    task_accuracies: Mapping[str, float] = field(default_factory=dict)
    """Accuracies by further task."""
    merged_accuracies: Mapping[str, float] = field(default_factory=dict)
    """Accuracies of the adapter merged into the base, by the recipe that it was served under; ``bf16`` for none."""

    def as_json(self) -> dict[str, Any]:
        """Return the row without unknown fields; the failure as ``reason`` and ``message``."""
        fields = {name: value for name, value in asdict(self).items() if name != "failure"}
        fields |= {"reason": self.failure.reason, "message": self.failure.message} if self.failure else {}
        return {name: value for name, value in fields.items() if value is not None and value not in ("", {})}


def run_rows(snapshot: Snapshot) -> tuple[ProgressRow, ...]:
    """Return one row for each run, in the plan's order."""
    states = snapshot.states
    return tuple(_run_row(snapshot, run, states[run.name]) for run in snapshot.plan.runs)


def service_rows(snapshot: Snapshot) -> tuple[ProgressRow, ...]:
    """Return the rows of the stages that runs share: data preparation, checks and the model servers."""
    return (
        _service_row(snapshot, "prepare", snapshot.plan.prepare),
        *_check_rows(snapshot),
        *_server_rows(snapshot),
    )


def _server_rows(snapshot: Snapshot) -> Iterator[ProgressRow]:
    for work in server_work(snapshot.plan, snapshot.observed):
        merged = f" of {_merged_run(work.server)}" if is_merged(work.server) else ""
        name = f"model server{merged}{_served(work.server)}"
        yield _service_row(snapshot, name, work.server, is_over=work.is_over and not _has_failed_early(snapshot))


def _check_rows(snapshot: Snapshot) -> Iterator[ProgressRow]:
    """Yield the rows of checks; none for a sweep that ended before checks existed."""
    for task in snapshot.plan.checks:
        is_known = snapshot.observed.is_done(task) or snapshot.observed.of(task).phase is not Phase.ABSENT
        if is_known or not snapshot.is_finished:
            yield _service_row(snapshot, _check_name(task), task)


def _check_name(task: Task) -> str:
    if stage_of(task) == "check-serving":
        return "serving check"
    return "task check" if (further := further_of(task)) is None else f"task check of {further}"


def all_rows(snapshot: Snapshot) -> tuple[ProgressRow, ...]:
    """Return the rows of shared stages, then those of runs."""
    return (*service_rows(snapshot), *run_rows(snapshot))


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepProgress:
    """Progress of a sweep, ready to be displayed."""

    title: str
    rows: tuple[ProgressRow, ...]
    """Shared stages, then runs."""
    finished: bool
    warnings: tuple[str, ...] = ()
    """Warnings of the prepare stage, a sentence each."""


def sweep_progress(snapshot: Snapshot) -> SweepProgress:
    """Return the progress of a sweep from a snapshot."""
    ended = sum(status.state.is_terminal for status in snapshot.states.values())
    title = title_of(snapshot.plan.sweep.name, ended=ended, total=len(snapshot.plan.runs))
    return SweepProgress(
        title=title, rows=all_rows(snapshot), finished=snapshot.is_finished, warnings=warnings_of(snapshot)
    )


def warnings_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the warnings of the prepare stage, of imports and of foreign training runs; empty before they are done."""
    prepared = result_of(snapshot.manifests.get(snapshot.plan.prepare.name), PrepareResult)
    return (*(prepared.warnings if prepared else ()), *_import_warnings(snapshot))


def _import_warnings(snapshot: Snapshot) -> Iterator[str]:
    for run in snapshot.plan.runs:
        manifest = snapshot.manifests.get(run.train.name) if run.train else None
        if imported := result_of(manifest, ImportResult) or result_of(manifest, ForeignTrainResult):
            yield from (f"{run.name}: {warning}" for warning in imported.warnings)


def title_of(sweep: str, *, ended: int, total: int) -> str:
    """Return the title line: how many of a sweep's runs have ended."""
    return f"{sweep}: {ended} of {total} runs ended"


def _run_row(snapshot: Snapshot, run: Run, status: RunStatus) -> ProgressRow:
    observed = snapshot.observed
    current = _current_task(run, status, observed)
    observation = observed.of(current)
    trained = training_of(snapshot.manifests.get(run.train.name)) if run.train else None
    scored = result_of(snapshot.manifests.get(run.evaluate.name), EvalResult)
    live = status.state in {RunState.TRAINING, RunState.IMPORTING, RunState.EVALUATING}
    figures = _live_figures(observation) if live else _result_figures(trained, _evaluation_seconds(snapshot, run))
    return ProgressRow(
        name=run.name,
        state=status.state.value,
        detail=_activity(observation) + _served(current) if live or observation.unplaced else _origin(snapshot, run),
        failure=status.failure or (_failure_of_attempt(observation) if live or observation.unplaced else None),
        attempt=observation.attempt,
        accuracy=scored.strict.accuracy if scored else None,
        stderr=scored.strict.stderr if scored else None,
        task_accuracies=_task_accuracies(snapshot, run),
        served_accuracies={under: found for under, found in _accuracies(snapshot, run, merged=False) if under},
        merged_accuracies={under or AS_PUBLISHED: found for under, found in _accuracies(snapshot, run, merged=True)},
        step=figures.step,
        total=figures.total,
        loss=figures.loss,
        tokens_per_second=figures.tokens_per_second,
        elapsed_s=figures.elapsed_s,
    )


def _current_task(run: Run, status: RunStatus, observed: Observed) -> Task:
    """Return the task whose step and attempt a row shows: of several evaluations, the first that is active."""
    if run.train is not None and status.state is not RunState.EVALUATING:
        return run.train
    return next((each.task for each in run.evaluations if observed.is_active(each.task)), run.evaluate)


def _served(task: Task) -> str:
    """Return how the base is served to an evaluation, to be appended; empty for the base as published."""
    under = under_of(task)
    if (further := further_of(task)) is not None:
        return f" of {further}"
    return (" merged" if is_merged(task) else "") + (f" under {under}" if under else "")


def _merged_run(server: Task) -> str:
    return str(server.request.merged) if isinstance(server.request, ServeRequest) else ""


def _evaluation_seconds(snapshot: Snapshot, run: Run) -> list[float]:
    results = (result_of(snapshot.manifests.get(each.task.name), EvalResult) for each in run.evaluations)
    return [result.seconds for result in results if result is not None]


def _accuracies(snapshot: Snapshot, run: Run, *, merged: bool) -> Iterator[tuple[str | None, float]]:
    """Yield the accuracies of a run by the recipe that the base was served under, those merged or the others."""
    for each in run.evaluations:
        result = result_of(snapshot.manifests.get(each.task.name), EvalResult)
        if result is not None and each.merged is merged and each.further is None:
            yield each.under, result.strict.accuracy


def _task_accuracies(snapshot: Snapshot, run: Run) -> dict[str, float]:
    found = ((each.further, result_of(snapshot.manifests.get(each.task.name), EvalResult)) for each in run.evaluations)
    return {task: result.strict.accuracy for task, result in found if task is not None and result is not None}


def _origin(snapshot: Snapshot, run: Run) -> str:
    """Return which stages of the run were reused, and from which sweep."""
    evaluations = {f"evaluation{_served(each.task)}": each.task for each in run.evaluations}
    tasks = {"import" if run.adapter else "training": run.train} | evaluations
    manifests = {stage: snapshot.manifests.get(task.name) for stage, task in tasks.items() if task}
    sources = {stage: sweep_of(found.reused_from) for stage, found in manifests.items() if found and found.reused_from}
    if not sources:
        return ""
    if len(sources) == len(manifests) and len(set(sources.values())) == 1:
        return f"reused from {next(iter(sources.values()))}"
    return ", ".join(f"{stage} reused from {source}" for stage, source in sources.items())


def _service_row(snapshot: Snapshot, name: str, task: Task, *, is_over: bool = False) -> ProgressRow:
    observation = snapshot.observed.of(task)
    if failure := failure_of(task, snapshot.observed):
        ended = RunState.SKIPPED if failure.is_lack_of_capability else RunState.FAILED
        return ProgressRow(name=name, state=ended.value, failure=failure)
    if snapshot.observed.is_done(task):
        prepared = result_of(snapshot.manifests.get(task.name), PrepareResult)
        warnings = prepared.warnings if prepared else ()
        failure = Failure(WARNING, " ".join(warnings)) if warnings else None
        return ProgressRow(name=name, state=ServiceState.DONE.value, failure=failure)
    if not observation.phase.is_active:
        return ProgressRow(name=name, state=ServiceState.DONE.value if is_over else RunState.PENDING.value)
    starts = task.is_server and observation.phase is Phase.PENDING
    state = ServiceState.STARTING if starts else ServiceState.RUNNING
    return ProgressRow(
        name=name,
        state=RunState.PENDING.value if observation.unplaced else state.value,
        detail=_activity(observation),
        failure=_failure_of_attempt(observation),
        attempt=observation.attempt,
        elapsed_s=observation.elapsed_s,
    )


def _has_failed_early(snapshot: Snapshot) -> bool:
    """Whether the sweep ended before anything was trained."""
    plan, observed = snapshot.plan, snapshot.observed
    return not observed.is_done(plan.prepare) or any(failure_of(check, observed) for check in plan.checks)


def _activity(task: Observation) -> str:
    if task.unplaced:
        return "waiting for resources"
    if task.phase is Phase.PENDING and task.reason:
        return "about to retry"
    return task.progress.phase if task.progress else Activity.STARTING


def _failure_of_attempt(task: Observation) -> Failure | None:
    return Failure(task.reason, task.message) if task.reason else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """The figures of a run while it is running, or when it has ended."""

    step: int = 0
    total: int = 0
    loss: float | None
    tokens_per_second: float | None
    elapsed_s: float | None


def _live_figures(task: Observation) -> _Figures:
    progress = task.progress or Progress(phase="")
    return _Figures(
        step=progress.step,
        total=progress.total,
        loss=progress.loss,
        tokens_per_second=progress.tokens_per_second,
        elapsed_s=task.elapsed_s,
    )


def _result_figures(trained: TrainResult | ForeignTrainResult | None, evaluation_seconds: list[float]) -> _Figures:
    return _Figures(
        loss=trained.final_train_loss if trained else None,
        tokens_per_second=trained.tokens_per_second if trained else None,
        elapsed_s=_sum(trained.train_seconds if trained else None, *evaluation_seconds),
    )


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
