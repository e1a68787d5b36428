"""One run of the checks, from its arguments to the exit code."""

import argparse
import logging
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import torch

from surogate_bench.contract import (
    GROUPS_OPTION,
    MINUTES_OPTION,
    OUTPUT_OPTION,
    TERMINATION_FILE,
    THREADS_OPTION,
    Service,
)
from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.files import write_atomically
from surogate_bench.machine.checks import ENGINES, REPORT_MARKDOWN, CheckReport, Device
from surogate_bench.machine.hardware import describe_machine, package_versions
from surogate_bench.processes.logs import configure_logging
from surogate_bench.processes.progress import Termination
from surogate_bench.processes.service import Terminated, die_with_parent
from surogate_bench_quantization import oracle
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_quantization.fusion import require_compiler
from surogate_bench_trainer.gpu_check.cpu_reference import CpuReference
from surogate_bench_trainer.gpu_check.device import describe_device
from surogate_bench_trainer.gpu_check.formats import format_checks
from surogate_bench_trainer.gpu_check.passes import pass_checks
from surogate_bench_trainer.gpu_check.products import product_checks
from surogate_bench_trainer.gpu_check.recorder import Finding, Recorder
from surogate_bench_trainer.gpu_check.settings import Setting, setting_for
from surogate_bench_trainer.gpu_check.speed import speed_checks
from surogate_bench_trainer.gpu_check.stage import stage_checks

PASSES, TRAIN_STAGE, SPEED = "passes", "train-stage", "speed"
GROUPS = (ENGINES, PASSES, TRAIN_STAGE, SPEED)
"""Groups in order of importance."""
_MINUTES = 8.0
_REFERENCE_THREADS = 4

Checks = Iterable[tuple[str, Callable[[], Finding]]]
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that the arguments select, and return the exit code.

    Returns:
        0 if every check has passed (on a CPU, all that need no GPU), 1 if one has not or time ran out, 2 for bad
        arguments, 130 if interrupted.
    """
    options = parse(arguments)
    configure_logging(Service.TRAINER.module)
    die_with_parent()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        report = run_checks(options, sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        _log.error("%s", error)
        termination = Termination(reason=type(error).__name__, message=str(error))
        write_atomically(options.output / TERMINATION_FILE, termination.model_dump_json().encode())
        return error.exit_code
    except (Terminated, KeyboardInterrupt):
        _log.warning("interrupted; %s has the checks so far", options.output / REPORT_MARKDOWN)
        return ExitCode.INTERRUPTED
    print((options.output / REPORT_MARKDOWN).read_text(encoding="utf-8"))  # noqa: T201 - the result
    return report.exit_code


def run_checks(options: argparse.Namespace, arguments: Sequence[str]) -> CheckReport:
    """Run the checks.

    Args:
        options: The parsed arguments.
        arguments: The arguments as given, for the report.

    Raises:
        ConfigError: a GPU is required and there is none, or there is no C compiler for its kernels.
        Terminated: SIGTERM arrived; the report has the checks so far.
    """
    deadline = time.monotonic() + 60 * options.minutes
    described = describe_device()
    device = torch.device("cuda", 0) if described.is_gpu else torch.device("cpu")
    if options.require_gpu and not described.is_gpu:
        raise _no_gpu(described)
    require_compiler(device)
    ensure_fast_bf16_products()
    setting = setting_for(device, options.output, full=options.full)
    if options.threads or not setting.full:  # small shapes gain nothing from threads
        torch.set_num_threads(options.threads or 1)
    recorder = Recorder(options.output, _empty_report(options, arguments, described), deadline=deadline)
    with ExitStack() as stack:
        reference = None
        if setting.on_gpu and TRAIN_STAGE in options.groups:
            reference = stack.enter_context(_reference(setting, deadline))
        for group in GROUPS:
            if group in options.groups:
                _run_group(group, _checks(group, setting, reference), recorder)
    recorder.finish()
    return recorder.report


def _run_group(group: str, checks: Checks, recorder: Recorder) -> None:
    for name, measure in checks:
        recorder.run(group, name, measure)


def _checks(group: str, setting: Setting, reference: CpuReference | None) -> Checks:
    if group == ENGINES:
        return _engines(setting)
    if group == PASSES:
        return pass_checks(setting)
    return stage_checks(setting, reference) if group == TRAIN_STAGE else speed_checks(setting)


def _engines(setting: Setting) -> Iterator[tuple[str, Callable[[], Finding]]]:
    yield from format_checks(setting)
    yield from product_checks(setting)


def _reference(setting: Setting, deadline: float) -> CpuReference:
    minutes = max(0.1, (deadline - time.monotonic()) / 60)
    arguments = [
        GROUPS_OPTION,
        TRAIN_STAGE,
        "--full",
        THREADS_OPTION,
        str(_REFERENCE_THREADS),
        MINUTES_OPTION,
        str(minutes),
    ]
    return CpuReference(setting.folder / "cpu", arguments, deadline=deadline)


def _empty_report(options: argparse.Namespace, arguments: Sequence[str], device: Device) -> CheckReport:
    return CheckReport(
        started=datetime.now(UTC),
        command=shlex.join(["python", "-m", __package__ or "", *arguments]),
        commit=options.commit,
        device=device,
        hardware=describe_machine(device.name if device.is_gpu else None),
        versions=package_versions(),
        oracle=oracle.source(),
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; those of the process if None."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    parser.add_argument(OUTPUT_OPTION, type=Path, default=Path("gpu-check"), help="folder of gpu-check.json and .md")
    parser.add_argument(GROUPS_OPTION, nargs="+", choices=GROUPS, default=GROUPS, help="instead of all")
    parser.add_argument(MINUTES_OPTION, type=float, default=_MINUTES, help="checks are not started after this time")
    parser.add_argument(THREADS_OPTION, type=int, help="CPU threads of torch; 1 in a dry run")
    parser.add_argument("--full", action="store_true", help="a GPU's sizes on a CPU too")
    parser.add_argument("--require-gpu", action="store_true", help="exit with 2 where there is no GPU")
    parser.add_argument("--commit", default="unknown", help="commit of the code, for the report")
    return parser.parse_args(arguments)


def _no_gpu(device: Device) -> ConfigError:
    return ConfigError(
        f"no GPU can be used: {device.problem or 'this is a CPU build of torch'}",
        field="--require-gpu",
        remedy="Update the driver, install a CUDA build of torch, or leave the option out for a dry run on the CPU.",
    )


def _terminate(number: int, frame: object) -> None:
    del number, frame
    raise Terminated
