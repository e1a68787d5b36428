"""The trainer service: runs a prepare or a train request. Imports of torch wait until there is work for it."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from surogate_bench.contract import Service
from surogate_bench.errors import ConfigError
from surogate_bench.model_source import SHIPPED_MODELS
from surogate_bench.requests import AnyRequest, PrepareRequest, TrainRequest
from surogate_bench.service import Exposition, run_service


def main() -> int:
    """Run the request named on the command line; returns the exit code."""
    return run_service(Service.TRAINER.module, _handle_alone, _metrics)


def handle(request: AnyRequest, work_dir: Path) -> None:
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


def _metrics(request: AnyRequest, work_dir: Path) -> Sequence[Exposition]:
    if not isinstance(request, TrainRequest):
        return ()
    from surogate_bench_trainer.exporter import TrainingExposition  # noqa: PLC0415 - only where metrics are served

    return (TrainingExposition(request, work_dir),)


def _handle_alone(request: AnyRequest, work_dir: Path) -> None:
    """Handle a request in a process that does nothing else, and so can leave out what the request does not need.

    transformers imports whatever it finds installed. scikit-learn, which it uses for assisted generation only, takes
    1.3 s with all that comes with it; torch and the modules behind it take 3 s, and a tokenizer does without them
    (the loader of hub data and the check of a checkpoint do not).
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns of an optional package when imported
    without = ["sklearn"]
    if (
        isinstance(request, PrepareRequest)
        and request.sweep.model.builtin in SHIPPED_MODELS
        and not request.sweep.data.hub
    ):
        without.append("torch")
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # about its absence
    for package in without:
        sys.modules[package] = None  # type: ignore[assignment] # looks as if it were not installed
    handle(request, work_dir)
