"""Entry point: ``python -m surogate_bench_evaluator REQUEST.json --work-dir DIR``."""

from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.requests import EvaluateRequest, PrepareRequest, ServeRequest, TrainRequest
from surogate_bench.service import run_service
from surogate_bench_evaluator.stage import evaluate_stage


def main() -> int:
    """Run the service; returns its exit code."""
    return run_service("surogate_bench_evaluator", handle)


def handle(request: PrepareRequest | TrainRequest | ServeRequest | EvaluateRequest, work_dir: Path) -> None:
    """Do what the request asks for.

    Raises:
        ConfigError: it is meant for another service.
    """
    if not isinstance(request, EvaluateRequest):
        raise ConfigError(
            "is not for the evaluator", field="request.kind", value=request.kind, remedy="Send it to its own service."
        )
    evaluate_stage(request, work_dir)
