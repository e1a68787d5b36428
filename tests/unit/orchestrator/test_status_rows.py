"""A row of the table is the same here and on a cluster, where it passes through the status of the resource."""

from dataclasses import fields

from surogate_bench_orchestrator.cli.targets.cluster.sweep import progress_row
from surogate_bench_orchestrator.controller.status.builder import status_row
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.resource.status import SweepStatus
from surogate_bench_orchestrator.sweep.rows import ProgressRow

ESTIMATED = {"eta_s"}
"""Fields that are estimated where the row is displayed."""
ROW = ProgressRow(
    name="fp8-s0", state="Evaluating", detail="answering", failure=Failure("Killed", "by SIGKILL"), attempt=2, step=30,
    total=100, loss=1.25, tokens_per_second=5123.4, elapsed_s=12.5, accuracy=0.75, stderr=0.0125,
    served_accuracies={"fp8": 0.5}, task_accuracies={"arc_easy": 0.625}, merged_accuracies={"bf16": 0.25, "fp8": 0.125},
)  # fmt: skip


def test_every_field_of_a_row_reaches_the_command_line_through_the_status() -> None:
    status = SweepStatus(runs=(status_row(ROW, limit=1000),))
    (received,) = SweepStatus.of({"status": status.to_object()}).runs
    assert progress_row(received) == ROW


def test_the_row_of_the_test_above_has_a_value_in_every_field() -> None:
    empty = ProgressRow(name="", state="")
    unset = {
        each.name for each in fields(ProgressRow)
        if each.name not in ESTIMATED and getattr(ROW, each.name) == getattr(empty, each.name)
    }  # fmt: skip
    assert not unset
