"""Entry point: ``python -m surogate_bench_evaluator REQUEST.json --work-dir DIR``."""

from collections.abc import Sequence
from pathlib import Path

from surogate_bench.contract import Service
from surogate_bench.errors import ConfigError
from surogate_bench.processes.service import Exposition, run_service
from surogate_bench.specs.task_errors import errors_of_task
from surogate_bench.stages.requests import AnyRequest, CheckRequest, EvaluateRequest
from surogate_bench_evaluator.check import check_stage
from surogate_bench_evaluator.stage import evaluate_stage


def main() -> int:
    """Run the service; returns its exit code."""
    return run_service(Service.EVALUATOR.module, handle, _metrics)


def handle(request: AnyRequest, work_dir: Path) -> None:
    """Run the requested stage.

    Raises:
        ConfigError: it is a request for another service, or see the stage.
    """
    if isinstance(request, CheckRequest) and request.subject == "task":
        with errors_of_task(request.sweep.evaluation, request.task):
            check_stage(request, work_dir)
        return
    if not isinstance(request, EvaluateRequest):
        raise ConfigError(
            "is not for the evaluator", field="request.kind", value=request.kind, remedy="Send it to its own service."
        )
    with errors_of_task(request.sweep.evaluation, request.task):
        evaluate_stage(request, work_dir)


def _metrics(request: AnyRequest, work_dir: Path) -> Sequence[Exposition]:
    if not isinstance(request, EvaluateRequest):
        return ()
    from surogate_bench_evaluator.metrics_exposition import EvaluationExposition  # noqa: PLC0415 - only where metrics are served

    return (EvaluationExposition(request, work_dir),)
