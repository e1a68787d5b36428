"""Run the command of a foreign trainer as a child process, and interpret its exit code."""

import os
from collections.abc import Callable
from pathlib import Path

from surogate_bench.contract import (
    COMMAND_ASKS_AGAIN,
    TRAINER_REQUEST_VARIABLE,
    command_exited,
    command_killed,
    command_not_started,
    command_overdue,
)
from surogate_bench.errors import ExitCode, ForeignTrainerError, TransientError, with_output
from surogate_bench.inputs.trainer_commands import full_command
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench_trainer.foreign.trainers.attempt import Attempt, fresh_folder
from surogate_bench_trainer.foreign.trainers.command import Command, Ended, run_command, trainer_environment
from surogate_bench_trainer.foreign.trainers.reported import newest_line
from surogate_bench_trainer.foreign.trainers.request import TrainerRequest


def run(attempt: Attempt, given: tuple[Path, TrainerRequest]) -> Ended:
    """Run the command to its end.

    Args:
        attempt: The attempt.
        given: Path and content of its request.

    Raises:
        ConfigError: its program cannot be started.
        ForeignTrainerError: it failed or passed its deadline.
        TransientError: it was killed, or asks for another attempt.
    """
    path, content = given
    trainer = attempt.trainer
    command = Command(
        arguments=full_command(trainer, path),
        environment=trainer_environment(os.environ, {**trainer.environment, TRAINER_REQUEST_VARIABLE: str(path)}),
        folder=fresh_folder(attempt.scratch),
        timeout_s=trainer.timeout_s or attempt.sweep.train_timeout_s,
    )
    try:
        ended = run_command(command, between=_reporting(attempt.work_dir, content))
    except OSError as error:
        raise ForeignTrainerError(command_not_started(str(error.strerror))) from error
    _require_success(ended, command.timeout_s)
    return ended


def _require_success(ended: Ended, timeout_s: float) -> None:
    if ended.code == ExitCode.OK:
        return
    if ended.code is None:
        raise ForeignTrainerError(command_overdue(timeout_s), ended.last_lines)
    if ended.code < 0:
        raise TransientError(with_output(command_killed(-ended.code), ended.last_lines))
    if ended.code == ExitCode.TRANSIENT:
        raise TransientError(with_output(COMMAND_ASKS_AGAIN, ended.last_lines))
    raise ForeignTrainerError(command_exited(ended.code), ended.last_lines)


def _reporting(work_dir: Path, content: TrainerRequest) -> Callable[[], None]:
    """Return a function that reports the newest step and loss."""

    def report() -> None:
        newest = newest_line(content.output)
        step = min(newest.step, content.steps) if newest else 0
        write_progress(
            work_dir,
            Progress(phase=Activity.TRAINING, step=step, total=content.steps, loss=newest.loss if newest else None),
        )

    return report
