"""Entry point of the trainer service. torch is imported only by the requests that need it."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from surogate_bench.contract import Service
from surogate_bench.errors import ConfigError
from surogate_bench.processes.service import Exposition, run_service
from surogate_bench.stages.model_source import SHIPPED_MODELS
from surogate_bench.stages.requests import (
    AnyRequest,
    ExportRequest,
    ForeignTrainRequest,
    ImportRequest,
    InspectRequest,
    PrepareRequest,
    TrainRequest,
)


def main() -> int:
    """Run the request named on the command line and return the exit code."""
    return run_service(Service.TRAINER.module, _handle_in_own_process, _metrics)


def handle(request: AnyRequest, work_dir: Path) -> None:
    """Run one request.

    Raises:
        ConfigError: the request is for another service.
        BenchError: the stage failed.
    """
    if isinstance(request, PrepareRequest):
        from surogate_bench_trainer.prepare import prepare_stage  # noqa: PLC0415 - start-up time

        prepare_stage(request, work_dir)
    elif isinstance(request, InspectRequest):
        from surogate_bench_trainer.prepare import inspect_stage  # noqa: PLC0415 - start-up time

        inspect_stage(request, work_dir)
    elif isinstance(request, TrainRequest):
        from surogate_bench_trainer.train_stage import train_stage  # noqa: PLC0415 - start-up time

        train_stage(request, work_dir)
    elif isinstance(request, ExportRequest):
        from surogate_bench_trainer.export import export_stage  # noqa: PLC0415 - start-up time

        export_stage(request, work_dir)
    elif isinstance(request, ImportRequest):
        from surogate_bench_trainer.foreign.adapters.stage import import_stage  # noqa: PLC0415 - start-up time

        import_stage(request, work_dir)
    elif isinstance(request, ForeignTrainRequest):
        from surogate_bench_trainer.foreign.trainers.stage import foreign_train_stage  # noqa: PLC0415 - start-up time

        foreign_train_stage(request, work_dir)
    else:
        raise ConfigError(
            "is not for the trainer",
            field="request.kind",
            value=request.kind,
            remedy="The trainer takes prepare, inspect, train, import, foreign-train and export requests.",
        )


def _metrics(request: AnyRequest, work_dir: Path) -> Sequence[Exposition]:
    if not isinstance(request, TrainRequest):
        return ()
    from surogate_bench_trainer.metrics_exposition import TrainingExposition  # noqa: PLC0415 - only where metrics are served

    return (TrainingExposition(request, work_dir),)


def _handle_in_own_process(request: AnyRequest, work_dir: Path) -> None:
    """Run one request in a process of its own, without importing packages that the request does not need.

    transformers imports every optional package that is installed. scikit-learn, which it uses for assisted generation
    only, takes 1.3 s including its dependencies. torch and the modules that depend on it take 3 s; a tokenizer works
    without them, but the loader of hub data and the checks of a checkpoint do not.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns about an optional package on import
    hidden = ["sklearn"]
    if (
        isinstance(request, PrepareRequest | InspectRequest)
        and request.sweep.model.builtin in SHIPPED_MODELS
        and not request.sweep.data.hub
    ):
        hidden.append("torch")
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that torch is missing
    for package in hidden:
        sys.modules[package] = None  # type: ignore[assignment] # imports fail as if it were not installed
    handle(request, work_dir)
