"""The trainer service: runs a prepare or a train request. Imports of torch wait until there is work for it."""

from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.requests import EvaluateRequest, PrepareRequest, ServeRequest, TrainRequest
from surogate_bench.service import run_service


def main() -> int:
    """Run the request named on the command line; returns the exit code."""
    return run_service("surogate_bench_trainer", handle)


def handle(request: PrepareRequest | TrainRequest | ServeRequest | EvaluateRequest, work_dir: Path) -> None:
    """Carry one request out.

    Raises:
        ConfigError: the request is for another service.
        BenchError: the stage failed.
    """
    if isinstance(request, PrepareRequest):
        from surogate_bench_trainer.prepare import prepare_stage  # noqa: PLC0415 - start-up time

        prepare_stage(request, work_dir)
    elif isinstance(request, TrainRequest):
        from surogate_bench_trainer.train_stage import train_stage  # noqa: PLC0415 - start-up time

        train_stage(request, work_dir)
    else:
        raise ConfigError(
            "is not for the trainer",
            field="request.kind",
            value=request.kind,
            remedy="The trainer takes prepare and train requests.",
        )
