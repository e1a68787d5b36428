"""A snapshot as rows for people and programs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from surogate_bench.layout import sweep_of
from surogate_bench.manifest import result_of
from surogate_bench.results import EvalResult, PrepareResult, TrainResult
from surogate_bench_orchestrator.domain.observed import Failure, Observed, RunState, RunStatus, failure_of
from surogate_bench_orchestrator.domain.plan import Run
from surogate_bench_orchestrator.domain.serving import server_work
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, stage_of, under_of
from surogate_bench_orchestrator.sweep.runner import Snapshot

WARNING = "Warning"
"""Reason of a row that is done and has something to say."""
_NAMES = {"check-task": "task check", "check-serving": "serving check"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRow:
    """One run, or one of the services that all runs share."""

    name: str
    state: str
    detail: str = ""
    """What it is doing within its state."""
    trouble: str = ""
    """Why it failed, or why the attempt before did; or, where it is done, what to know before trusting the results."""
    attempt: int = 0
    step: int = 0
    total: int = 0
    """Steps (training) or requests (evaluation); 0 while unknown."""
    loss: float | None = None
    tokens_per_second: float | None = None
    elapsed_s: float | None = None
    eta_s: float | None = None
    """Seconds until the present stage ends, going on as so far; only :class:`Pace` knows it."""
    accuracy: float | None = None
    stderr: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The row without what is not known."""
        return {name: value for name, value in asdict(self).items() if value not in {None, ""}}


def run_rows(snapshot: Snapshot) -> tuple[ViewRow, ...]:
    """One row a run, in the plan's order."""
    states = snapshot.states
    return tuple(_run_row(snapshot, run, states[run.name]) for run in snapshot.plan.runs)


def service_rows(snapshot: Snapshot) -> tuple[ViewRow, ...]:
    """Rows of what runs share: data preparation, checks and the model servers."""
    return (
        _service_row(snapshot, "prepare", snapshot.plan.prepare),
        *_check_rows(snapshot),
        *_server_rows(snapshot),
    )


def _server_rows(snapshot: Snapshot) -> Iterator[ViewRow]:
    for work in server_work(snapshot.plan, snapshot.observed):
        name = f"model server{_served(work.server)}"
        yield _service_row(snapshot, name, work.server, is_over=work.is_over and not _has_failed_early(snapshot))


def _check_rows(snapshot: Snapshot) -> Iterator[ViewRow]:
    """Checks; a sweep that ended before there were any shows none."""
    for task in snapshot.plan.checks:
        is_known = snapshot.observed.is_done(task) or snapshot.observed.of(task).phase is not Phase.ABSENT
        if is_known or not snapshot.is_finished:
            yield _service_row(snapshot, _NAMES[stage_of(task)], task)


def all_rows(snapshot: Snapshot) -> tuple[ViewRow, ...]:
    """What runs share, then the runs."""
    return (*service_rows(snapshot), *run_rows(snapshot))


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepView:
    """A sweep at one moment, ready to be shown."""

    title: str
    rows: tuple[ViewRow, ...]
    """What runs share, then the runs."""
    finished: bool
    warnings: tuple[str, ...] = ()
    """What to know before trusting the results, a sentence each."""


def sweep_view(snapshot: Snapshot) -> SweepView:
    """Make the view of a sweep that this machine works on."""
    ended = sum(status.state.is_terminal for status in snapshot.states.values())
    title = title_of(snapshot.plan.sweep.name, ended=ended, total=len(snapshot.plan.runs))
    return SweepView(
        title=title, rows=all_rows(snapshot), finished=snapshot.is_finished, warnings=warnings_of(snapshot)
    )


def warnings_of(snapshot: Snapshot) -> tuple[str, ...]:
    """What the prepare stage warns of; empty before it is done."""
    prepared = result_of(snapshot.manifests.get(snapshot.plan.prepare.name), PrepareResult)
    return prepared.warnings if prepared else ()


def title_of(sweep: str, *, ended: int, total: int) -> str:
    """Say how many of a sweep's runs have ended."""
    return f"{sweep}: {ended} of {total} runs ended"


class Pace:
    """Estimates when stages end, from the steps seen so far; time before the first step, for starting, is left out."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, int, int, float]] = {}

    def estimate(self, row: ViewRow, now: float) -> ViewRow:
        """Add the estimate to a row.

        Args:
            row: With its present step.
            now: Seconds on any clock that goes on evenly.
        """
        first = self._first.get(row.name)
        if first is None or first[:2] != (row.state, row.attempt) or row.step < first[2]:
            first = (row.state, row.attempt, row.step, now)
            if row.step:
                self._first[row.name] = first
        steps = row.step - first[2]
        if steps <= 0 or row.total < row.step:
            return row
        return replace(row, eta_s=(now - first[3]) / steps * (row.total - row.step))


def _run_row(snapshot: Snapshot, run: Run, status: RunStatus) -> ViewRow:
    observed = snapshot.observed
    current = _current_task(run, status, observed)
    seen = observed.of(current)
    trained = result_of(snapshot.manifests.get(run.train.name), TrainResult) if run.train else None
    scored = result_of(snapshot.manifests.get(run.evaluate.name), EvalResult)
    live = status.state in {RunState.TRAINING, RunState.EVALUATING}
    figures = _live_figures(seen) if live else _result_figures(trained, _evaluation_seconds(snapshot, run))
    return ViewRow(
        name=run.name,
        state=status.state.value,
        detail=_doing(seen) + _served(current) if live or seen.unplaced else _origin(snapshot, run),
        trouble=str(status.failure) if status.failure else _trouble(seen) if live or seen.unplaced else "",
        attempt=seen.attempt,
        accuracy=scored.strict.accuracy if scored else None,
        stderr=scored.strict.stderr if scored else None,
        **figures,
    )


def _current_task(run: Run, status: RunStatus, observed: Observed) -> Task:
    """Return what a row's step and attempt are of: of evaluations side by side the first."""
    if run.train is not None and status.state is not RunState.EVALUATING:
        return run.train
    return next((each.task for each in run.evaluations if observed.is_active(each.task)), run.evaluate)


def _served(task: Task) -> str:
    """Return how the base is served to an evaluation, to be appended; empty for the base as published."""
    under = under_of(task)
    return f" under {under}" if under else ""


def _evaluation_seconds(snapshot: Snapshot, run: Run) -> list[float]:
    results = (result_of(snapshot.manifests.get(each.task.name), EvalResult) for each in run.evaluations)
    return [result.seconds for result in results if result is not None]


def _origin(snapshot: Snapshot, run: Run) -> str:
    """Say which stages of the run were not computed again, and whose results they are."""
    evaluations = {f"evaluation{_served(each.task)}": each.task for each in run.evaluations}
    tasks = {"training": run.train} | evaluations
    manifests = {stage: snapshot.manifests.get(task.name) for stage, task in tasks.items() if task}
    sources = {stage: sweep_of(found.reused_from) for stage, found in manifests.items() if found and found.reused_from}
    if not sources:
        return ""
    if len(sources) == len(manifests) and len(set(sources.values())) == 1:
        return f"reused from {next(iter(sources.values()))}"
    return ", ".join(f"{stage} reused from {source}" for stage, source in sources.items())


def _service_row(snapshot: Snapshot, name: str, task: Task, *, is_over: bool = False) -> ViewRow:
    seen = snapshot.observed.of(task)
    if failure := failure_of(task, snapshot.observed):
        ended = RunState.SKIPPED if failure.is_lack_of_capability else RunState.FAILED
        return ViewRow(name=name, state=ended.value, trouble=str(failure))
    if snapshot.observed.is_done(task):
        warnings = warnings_of(snapshot) if task == snapshot.plan.prepare else ()
        return ViewRow(name=name, state="Done", trouble=str(Failure(WARNING, " ".join(warnings))) if warnings else "")
    if not seen.phase.is_active:
        return ViewRow(name=name, state="Done" if is_over else RunState.PENDING.value)
    state = "Starting" if task.is_server and seen.phase is Phase.PENDING else "Running"
    return ViewRow(
        name=name,
        state=RunState.PENDING.value if seen.unplaced else state,
        detail=_doing(seen),
        trouble=_trouble(seen),
        attempt=seen.attempt,
        elapsed_s=seen.elapsed_s,
    )


def _has_failed_early(snapshot: Snapshot) -> bool:
    """Whether the sweep ended before anything was trained."""
    plan, observed = snapshot.plan, snapshot.observed
    return not observed.is_done(plan.prepare) or any(failure_of(check, observed) for check in plan.checks)


def _doing(seen: Observation) -> str:
    if seen.unplaced:
        return "waits for room"
    if seen.phase is Phase.PENDING and seen.reason:
        return "about to try again"
    return seen.progress.phase if seen.progress else "starting"


def _trouble(seen: Observation) -> str:
    return str(Failure(seen.reason, seen.message)) if seen.reason else ""


def _live_figures(seen: Observation) -> dict[str, Any]:
    progress, elapsed = seen.progress, seen.elapsed_s
    if progress is None:
        return {"elapsed_s": elapsed}
    return {
        "step": progress.step,
        "total": progress.total,
        "loss": progress.loss,
        "tokens_per_second": progress.tokens_per_second,
        "elapsed_s": elapsed,
    }


def _result_figures(trained: TrainResult | None, evaluation_seconds: list[float]) -> dict[str, Any]:
    return {
        "loss": trained.final_train_loss if trained else None,
        "tokens_per_second": trained.tokens_per_second if trained else None,
        "elapsed_s": _sum(trained.train_seconds if trained else None, *evaluation_seconds),
    }


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
