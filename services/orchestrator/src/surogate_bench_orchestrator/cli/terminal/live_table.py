"""Progress of a sweep while it runs: a table that is redrawn on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from typing_extensions import override

from surogate_bench_orchestrator.domain.observed import Failure, RunState
from surogate_bench_orchestrator.report.tables.fitted_table import Column, FittedTable
from surogate_bench_orchestrator.sweep.pace import Pace
from surogate_bench_orchestrator.sweep.rows import ProgressRow, ServiceState, SweepProgress

_REDRAW_S = 2.0
"""Drawing takes about 20 ms of CPU time, which the trainers need."""

_PROGRESS_LINE_S = 10.0
_COLUMNS = (
    Column(header="run", folds=True),
    Column(header="state"),
    Column(header="step", justify="right", rank=3),
    Column(header="loss", justify="right", rank=5),
    Column(header="tokens/s", justify="right", rank=6),
    Column(header="elapsed", justify="right", rank=4),
    Column(header="ETA", justify="right", rank=7),
    Column(header="accuracy", justify="right", rank=1),
    Column(header="", rank=2, remark=True),
)
_STYLES: Mapping[str, str] = {
    RunState.PENDING: "dim",
    RunState.TRAINING: "cyan",
    RunState.IMPORTING: "cyan",
    ServiceState.STARTING: "cyan",
    ServiceState.RUNNING: "cyan",
    RunState.TRAINED: "blue",
    RunState.EVALUATING: "magenta",
    RunState.SUCCEEDED: "green",
    ServiceState.DONE: "green",
    RunState.FAILED: "bold red",
    RunState.SKIPPED: "yellow",
}


class Display(Protocol):
    """Displays the progress of a sweep; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, progress: SweepProgress) -> None:
        """Display the current status of the sweep."""
        ...


def choose_display(console: Console) -> Display:
    """Choose the table for a terminal and lines for everything else."""
    return LiveTable(console) if console.is_terminal else LineLog(console)


class LiveTable(Display):
    """A row for each run, redrawn every two seconds."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._pace = Pace()
        self._started = time.monotonic()
        self._drawn = 0.0
        self._warned: frozenset[str] = frozenset()

    @override
    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    @override
    def show(self, progress: SweepProgress) -> None:
        now = time.monotonic()
        for warning in progress.warnings:
            if warning not in self._warned:  # printed once above the table, as it is too long for a row
                self._live.console.print(Text(f"Warning: {warning}"), soft_wrap=True)
        self._warned |= set(progress.warnings)
        if now - self._drawn >= _REDRAW_S or progress.finished:
            self._drawn = now
            paced = replace(progress, rows=tuple(self._pace.estimate(row, now) for row in progress.rows))
            self._live.update(render_progress(paced, now - self._started), refresh=True)


class LineLog(Display):
    """A line for every change of state, and every ten seconds one for each run that makes progress."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._pace = Pace()
        self._started = clock()
        self._shown: dict[str, tuple[str, int, Failure | None]] = {}
        self._progress_at: dict[str, float] = {}

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @override
    def show(self, progress: SweepProgress) -> None:
        now = self._clock()
        first_with: dict[Failure | None, str] = {}
        for row in progress.rows:
            first_with.setdefault(row.failure, row.name)
        for row in (self._pace.estimate(row, now) for row in progress.rows):
            state = (row.state, row.attempt, row.failure)
            changed = state != self._shown.get(row.name, (RunState.PENDING, 0, None))
            due = now - self._progress_at.setdefault(row.name, now) >= _PROGRESS_LINE_S
            if changed or (row.step and due):
                first = first_with[row.failure]
                failure = str(row.failure) if first == row.name else f"for the same reason as {first}"
                self._write(now, row, failure=failure if changed and row.failure else "")
                self._shown[row.name] = state
                self._progress_at[row.name] = now

    def _write(self, now: float, row: ProgressRow, *, failure: str) -> None:
        parts = [f"{duration(now - self._started)}  {row.name}: {row.state}", *_describe(row), failure]
        self._console.print(Text("  ".join(part for part in parts if part)), soft_wrap=True)


def render_progress(progress: SweepProgress, elapsed_s: float | None = None) -> Group:
    """Return the table with its title.

    Args:
        progress: The sweep to show.
        elapsed_s: Seconds since the start; None if unknown.
    """
    table = FittedTable(_COLUMNS)
    for row in progress.rows:
        table.add_row(_cells(row))
    return Group(Text(f"{progress.title}  {duration(elapsed_s)}".rstrip(), style="bold"), table)


def duration(seconds: float | None) -> str:
    """Format seconds as m:ss or h:mm:ss; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cells(row: ProgressRow) -> list[Text]:
    return [
        Text(row.name),
        Text(row.state, style=_STYLES.get(row.state, "")),
        Text(_steps(row)),
        Text("" if row.loss is None else f"{row.loss:.3f}"),
        Text("" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}"),
        Text(duration(row.elapsed_s)),
        Text(duration(row.eta_s)),
        Text("" if row.accuracy is None else f"{row.accuracy:.3f}"),
        Text("; ".join(part for part in (row.detail, _served(row), str(row.failure or "")) if part)),
    ]


def _describe(row: ProgressRow) -> list[str]:
    parts = [_steps(row)]
    if row.loss is not None:
        parts.append(f"loss {row.loss:.3f}")
    if row.tokens_per_second is not None:
        parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
    if row.eta_s is not None:
        parts.append(f"ETA {duration(row.eta_s)}")
    if row.accuracy is not None:
        parts.append(f"accuracy {row.accuracy:.3f}")
    parts.append(_served(row))
    attempt = f"(attempt {row.attempt})" if row.attempt > 1 else ""
    return [part for part in (*parts, row.detail, attempt) if part]


def _served(row: ProgressRow) -> str:
    """Format the accuracies under recipes, of merged adapters and of further tasks; empty without any."""
    ways = {"served under": row.served_accuracies, "merged:": row.merged_accuracies, "tasks:": row.task_accuracies}
    found = {way: [f"{under} {accuracy:.3f}" for under, accuracy in by.items()] for way, by in ways.items()}
    return "; ".join(f"{way} {', '.join(texts)}" for way, texts in found.items() if texts)


def _steps(row: ProgressRow) -> str:
    if not row.step:
        return ""
    return f"{row.step}/{row.total}" if row.total else str(row.step)
