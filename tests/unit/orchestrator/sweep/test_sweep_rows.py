"""What people see of a sweep while it runs."""

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from finished_stages import manifest_of
from rich.console import Console
from sweeps import small_sweep

from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.cli.terminal.live_table import (
    LineLog,
    LiveTable,
    choose_display,
    duration,
    render_progress,
)
from surogate_bench_orchestrator.domain.observed import Failure, Observed
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.sweep.pace import Pace
from surogate_bench_orchestrator.sweep.rows import ProgressRow, all_rows, run_rows, service_rows, sweep_progress
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

PLAN = plan(small_sweep(), "file:///results")
BASE, RUN = PLAN.runs
TRAIN = PLAN.training_order[0]
TRAINING = Observation(
    phase=Phase.RUNNING, attempt=1, elapsed_s=12.0,
    progress=Progress(phase="training", step=30, total=100, loss=1.25, tokens_per_second=5123.4),
)  # fmt: skip
TRAINED = {"final_train_loss": 0.5, "tokens_per_second": 50.0, "train_seconds": 30.0}
SCORED = {"strict": {"accuracy": 0.625, "stderr": 0.02}, "seconds": 12.0}


def snapshot(observed: Mapping[Task, Observation], results: Mapping[Task, dict[str, Any]]) -> Snapshot:
    manifests = {task.name: manifest_of(task.request, **result) for task, result in results.items()}
    tasks = {task.name: observation for task, observation in observed.items()}
    return Snapshot(plan=PLAN, observed=Observed(done=frozenset(manifests), tasks=tasks, slots=2), manifests=manifests)


NOTHING_YET = snapshot({}, {})
IN_TRAINING = snapshot({TRAIN: TRAINING}, {PLAN.prepare: {}})
ALL_DONE = snapshot({}, {PLAN.prepare: {}, TRAIN: TRAINED, RUN.evaluate: SCORED, BASE.evaluate: SCORED})


def row_of(shown: Snapshot, name: str) -> ProgressRow:
    return {row.name: row for row in all_rows(shown)}[name]


def test_before_the_start_everything_is_pending() -> None:
    assert [row.state for row in all_rows(NOTHING_YET)] == ["Pending"] * 5


def test_a_sweep_that_ended_before_there_were_checks_shows_none() -> None:
    assert "task check" in {row.name for row in all_rows(IN_TRAINING)}
    assert "task check" not in {row.name for row in all_rows(ALL_DONE)}


def test_a_training_run_shows_step_loss_speed_and_time() -> None:
    row = row_of(IN_TRAINING, "bf16-s0")
    assert (row.state, row.detail, row.step, row.total) == ("Training", "training", 30, 100)
    assert (row.loss, row.tokens_per_second, row.elapsed_s) == (1.25, 5123.4, 12.0)


def test_a_run_that_has_not_reported_anything_yet_is_starting() -> None:
    silent = snapshot({TRAIN: replace(TRAINING, progress=None)}, {PLAN.prepare: {}})
    row = row_of(silent, "bf16-s0")
    assert (row.state, row.detail, row.step, row.elapsed_s) == ("Training", "starting", 0, 12.0)


def test_a_trained_run_shows_the_results_of_its_training() -> None:
    row = row_of(snapshot({}, {PLAN.prepare: {}, TRAIN: TRAINED}), "bf16-s0")
    assert (row.state, row.loss, row.tokens_per_second, row.elapsed_s) == ("Trained", 0.5, 50.0, 30.0)


def test_an_evaluation_shows_its_own_progress_and_not_that_of_the_training() -> None:
    scoring = Observation(phase=Phase.RUNNING, attempt=1, progress=Progress(phase="evaluating", step=7, total=20))
    row = row_of(snapshot({RUN.evaluate: scoring, TRAIN: TRAINING}, {PLAN.prepare: {}, TRAIN: TRAINED}), "bf16-s0")
    assert (row.state, row.step, row.total, row.loss) == ("Evaluating", 7, 20, None)


def test_a_finished_run_shows_accuracy_and_the_time_of_both_stages() -> None:
    row = row_of(ALL_DONE, "bf16-s0")
    assert (row.state, row.accuracy, row.stderr, row.elapsed_s) == ("Succeeded", 0.625, 0.02, 42.0)
    assert {row.state for row in service_rows(ALL_DONE)} == {"Done"}


def test_a_failure_shows_its_reason() -> None:
    failed = Observation(phase=Phase.FAILED, attempt=3, reason="Killed", message="by SIGKILL")
    row = row_of(snapshot({TRAIN: failed}, {PLAN.prepare: {}}), "bf16-s0")
    assert (row.state, row.failure) == ("Failed", Failure("Killed", "by SIGKILL"))
    assert row_of(snapshot({PLAN.server: failed}, {}), "model server").failure == Failure("Killed", "by SIGKILL")


def test_another_attempt_shows_what_happened_to_the_one_before() -> None:
    waiting = Observation(phase=Phase.PENDING, attempt=1, reason="Killed", message="by SIGKILL")
    row = row_of(snapshot({TRAIN: waiting}, {PLAN.prepare: {}}), "bf16-s0")
    assert (row.state, row.detail, row.failure) == ("Training", "about to retry", Failure("Killed", "by SIGKILL"))


def test_a_run_without_room_shows_what_it_waits_for() -> None:
    waiting = Observation(phase=Phase.PENDING, attempt=1, reason="Unschedulable", message="no GPU", unplaced=True)
    row = row_of(snapshot({TRAIN: waiting}, {PLAN.prepare: {}}), "bf16-s0")
    assert (row.state, row.detail, row.failure) == (
        "Pending",
        "waiting for resources",
        Failure("Unschedulable", "no GPU"),
    )


def test_a_service_without_room_is_pending() -> None:
    waiting = Observation(phase=Phase.PENDING, attempt=1, reason="Queued", message="full", unplaced=True)
    row = row_of(snapshot({PLAN.prepare: waiting}, {}), "prepare")
    assert (row.state, row.detail, row.failure) == ("Pending", "waiting for resources", Failure("Queued", "full"))


@pytest.mark.parametrize(("phase", "state"), [(Phase.PENDING, "Starting"), (Phase.RUNNING, "Running")])
def test_the_server_is_starting_until_it_is_ready(phase: Phase, state: str) -> None:
    shown = snapshot({PLAN.server: Observation(phase=phase, attempt=1)}, {PLAN.prepare: {}})
    assert row_of(shown, "model server").state == state


def test_json_leaves_out_what_is_not_known_and_keeps_zeros() -> None:
    assert run_rows(NOTHING_YET)[0].as_json() == {
        "name": "base", "state": "Pending", "attempt": 0, "step": 0, "total": 0,
    }  # fmt: skip


def paced(*rows: tuple[ProgressRow, float]) -> list[float | None]:
    pace = Pace()
    return [pace.estimate(row, now).eta_s for row, now in rows]


def test_the_end_is_estimated_from_the_observed_steps_without_the_start_up() -> None:
    row = row_of(IN_TRAINING, "bf16-s0")
    start = replace(row, step=0)
    assert paced((start, 0.0), (row, 100.0), (replace(row, step=40), 105.0)) == [None, None, 30.0]


def test_a_new_attempt_is_estimated_anew() -> None:
    row = row_of(IN_TRAINING, "bf16-s0")
    again = replace(row, step=25, attempt=2)
    assert paced((row, 0.0), (replace(row, step=31), 1.0), (again, 50.0), (replace(again, step=35), 60.0)) == [
        None, 69.0, None, 65.0,
    ]  # fmt: skip


def test_there_is_no_estimate_where_the_total_is_unknown() -> None:
    row = replace(row_of(IN_TRAINING, "bf16-s0"), total=0)
    assert paced((row, 0.0), (replace(row, step=40), 5.0)) == [None, None]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, ""), (0.4, "0:00"), (59.6, "1:00"), (75, "1:15"), (3725, "1:02:05")]
)
def test_times_are_short(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def text_of(shown: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(render_progress(sweep_progress(shown), 75.0))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_table_has_a_row_for_each_run_and_says_how_many_ended() -> None:
    text = text_of(IN_TRAINING)
    assert "small: 0 of 2 runs ended  1:15" in text
    line = next(line for line in text.splitlines() if line.startswith(" bf16-s0") or line.startswith("bf16-s0"))
    assert all(part in line for part in ("Training", "30/100", "1.250", "5,123", "0:12", "training"))
    assert "0.625" in text_of(ALL_DONE)


def test_text_of_others_is_not_read_as_markup() -> None:
    failed = Observation(phase=Phase.FAILED, reason="Odd", message="[bold]tensor[/nothing]")
    assert "[bold]tensor[/nothing]" in text_of(snapshot({TRAIN: failed}, {PLAN.prepare: {}}))


class Recorder:
    """A line log whose time a test sets, and what it wrote."""

    def __init__(self) -> None:
        self.time = 0.0
        self._file = io.StringIO()
        self._log = LineLog(Console(file=self._file, width=120), clock=lambda: self.time)

    def show(self, shown: Snapshot, *, at: float) -> list[str]:
        self.time = at
        before = len(self._file.getvalue())
        with self._log as log:
            log.show(sweep_progress(shown))
        return self._file.getvalue()[before:].splitlines()


def test_a_line_is_written_for_a_change_of_state_and_not_twice() -> None:
    log = Recorder()
    assert log.show(NOTHING_YET, at=0) == []
    lines = log.show(IN_TRAINING, at=5)
    assert lines == ["0:05  prepare: Done", "0:05  bf16-s0: Training  30/100  loss 1.250  5,123 tokens/s  training"]
    assert log.show(IN_TRAINING, at=6) == []


def test_progress_is_written_every_ten_seconds() -> None:
    log = Recorder()
    log.show(IN_TRAINING, at=0)
    assert log.show(IN_TRAINING, at=9) == []
    further = replace(TRAINING, progress=Progress(phase="training", step=40, total=100))
    lines = log.show(snapshot({TRAIN: further}, {PLAN.prepare: {}}), at=10)
    assert lines == ["0:10  bf16-s0: Training  40/100  ETA 1:00  training"]


def test_a_failure_is_written_with_its_reason_once() -> None:
    log = Recorder()
    log.show(IN_TRAINING, at=0)
    again = snapshot(
        {TRAIN: replace(TRAINING, attempt=2, reason="Killed", message="by SIGKILL", progress=None)}, {PLAN.prepare: {}}
    )
    assert log.show(again, at=1) == ["0:01  bf16-s0: Training  starting  (attempt 2)  Killed: by SIGKILL"]
    assert log.show(again, at=30) == []


def test_a_terminal_gets_a_table_and_a_pipe_gets_lines() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140)
    assert isinstance(choose_display(terminal), LiveTable)
    assert isinstance(choose_display(Console(file=io.StringIO())), LineLog)


def test_the_live_table_is_drawn_and_gone_at_the_end() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140)
    with LiveTable(terminal) as table:
        table.show(sweep_progress(IN_TRAINING))
        table.show(sweep_progress(NOTHING_YET))  # too soon to be drawn
        table.show(sweep_progress(ALL_DONE))
    file = terminal.file
    assert isinstance(file, io.StringIO)
    drawn = file.getvalue()
    assert "30/100" in drawn
    assert "2 of 2 runs ended" in drawn
    assert drawn.count("0 of 2 runs ended") == 1


def test_the_table_leaves_a_warning_of_preparation_above_it_once_and_whole() -> None:
    warning = "12 of 500 test questions are in the training split too, so accuracies may reflect memorized answers."
    warned = sweep_progress(snapshot({}, {PLAN.prepare: {"warnings": [warning]}}))
    assert warned.warnings == (warning,)
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    with LiveTable(console) as display:
        display.show(warned)
        display.show(warned)
    shown = console.file.getvalue()  # a StringIO
    assert shown.count(f"Warning: {warning}") == 1
