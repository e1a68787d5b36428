"""The common entry point of services: arguments, logs, signals and exit codes."""

import argparse
import ctypes
import errno
import importlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

from surogate_bench.contract import (
    METRICS_PORT_VARIABLE,
    PARENT_PID_VARIABLE,
    TERMINATION_FILE,
    TERMINATION_LOG_VARIABLE,
    WORK_DIR_OPTION,
)
from surogate_bench.errors import BenchError, ExitCode
from surogate_bench.files import write_atomically
from surogate_bench.processes.logs import configure_logging
from surogate_bench.processes.progress import Termination
from surogate_bench.stages.requests import AnyRequest, read_request

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1

_TERMINATION_BYTES = 16 * 1024
_TERMINATION_LOG_BYTES = 4096
"""Maximum size of a termination message that Kubernetes reads."""

_DETERMINISTIC = (
    *(ImportError, NameError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError),
    *(NotImplementedError, RecursionError, SyntaxError),
)
_SHAPES_DIFFER = re.compile(
    r"\bshapes?\b|\bsizes? (of tensors?|mismatch)|must match|same number of dimensions|same dtype|expected scalar type",
    re.IGNORECASE,
)
"""Matches error messages of torch, for example "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"."""

_CUT_SHORT = (json.JSONDecodeError, UnicodeDecodeError)
"""ValueErrors that truncated input may cause, and that another attempt may avoid."""
_NETWORK = frozenset({"ConnectionError", "TimeoutError", "Timeout", "TransportError", "ClientConnectionError"})
"""Names of base classes in Python, httpx, requests and aiohttp."""
_LONGEST_CHAIN = 20
_LASTING = frozenset({None, *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)})
"""Error numbers of paths that would fail again; libraries raise OSError without a number for invalid content."""

Handler = Callable[[AnyRequest, Path], None]
Exposition = Callable[[], bytes]
"""Returns the current metrics in Prometheus' text format."""


class Terminated(BaseException):
    """SIGTERM was received: leave nothing that another attempt would take for finished, and exit."""


def run_service(
    name: str, handle: Handler, metrics: Callable[[AnyRequest, Path], Sequence[Exposition]] | None = None
) -> int:
    """Run a service: read the request, handle it, and return the exit code for the outcome.

    A failure is recorded as a :class:`Termination` in the work folder, which the orchestrator reads. Errors that were
    not raised on purpose end with 4, which is not retried, where the same input gives the same error again:

    - a module, name or attribute that is missing (``ImportError``, ``NameError``, ``AttributeError``),
    - a value that the code cannot work with (``TypeError``, ``ValueError``, ``LookupError``, ``ArithmeticError``,
      ``AssertionError``, ``NotImplementedError``, ``RecursionError``, ``SyntaxError``),
    - tensors whose shapes or types do not fit (PyTorch raises a plain ``RuntimeError``, recognized by its message).

    Excluded are errors that were caused by a failure of network, disk or memory (:func:`is_transient`), and JSON or
    text that cannot be decoded, which may have been truncated in transit.

    All others end with 1, a crash that another attempt may avoid: memory, the operating system, a device.

    Args:
        name: Name of the service's package.
        handle: Handles the request.
        metrics: Returns what the service exports besides process metrics; called if metrics are served.
    """
    arguments = _parse_arguments(name)
    configure_logging(name)
    die_with_parent()
    signal.signal(signal.SIGTERM, _raise_terminated)
    work_dir: Path = arguments.work_dir
    began = time.monotonic()
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        request = read_request(arguments.request)
        _log.info("started: %s", request.kind, extra=_log_fields(request))
        with _observable(request, work_dir, metrics):
            handle(request, work_dir)
    except BenchError as error:
        _log.error("%s", error, extra={"reason": error.reason})
        _write_termination(work_dir, error.reason, str(error))
        return error.exit_code
    except (Terminated, KeyboardInterrupt):
        _log.warning("terminated by a signal; the stage is not finished")
        return ExitCode.TRANSIENT
    except MemoryError as error:
        _log.exception("out of memory")
        _write_termination(work_dir, "OutOfMemory", f"out of memory: {error}")
        return ExitCode.FAILED
    except OSError as error:
        _log.exception("operating system error")
        _write_termination(work_dir, "OSError", str(error))
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever it is must reach the user
        _log.exception("unexpected error")
        _write_termination(work_dir, type(error).__name__, str(error))
        return ExitCode.PERMANENT if is_deterministic(error) else ExitCode.FAILED
    _log.info("done", extra={"seconds": round(time.monotonic() - began, 1)})
    return ExitCode.OK


def run_main(module: str) -> int:
    """Import a service's module and call its ``main``; a failed import is reported as a failure of the service.

    Args:
        module: Full name, for example ``surogate_bench_trainer.main``.
    """
    name = module.partition(".")[0]
    try:
        main: Callable[[], int] = importlib.import_module(module).main
    except (ImportError, AttributeError, OSError) as error:  # OSError: a shared library that cannot be loaded
        arguments = _parse_arguments(name)
        configure_logging(name)
        _log.exception("the service cannot be imported")
        arguments.work_dir.mkdir(parents=True, exist_ok=True)
        _write_termination(arguments.work_dir, type(error).__name__, str(error))
        return ExitCode.FAILED if is_transient(error) else ExitCode.PERMANENT
    return main()


def _parse_arguments(name: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {name}")
    parser.add_argument("request", type=Path, help="JSON request written by the orchestrator")
    parser.add_argument(WORK_DIR_OPTION, type=Path, required=True, help="folder for scratch files, progress and errors")
    return parser.parse_args()


def is_deterministic(error: Exception) -> bool:
    """Return whether the same input would give this error again; see :func:`run_service`."""
    if is_transient(error) or isinstance(error, _CUT_SHORT):
        return False
    if isinstance(error, _DETERMINISTIC):
        return True
    return type(error) is RuntimeError and _SHAPES_DIFFER.search(str(error)) is not None


def is_transient(error: BaseException) -> bool:
    """Return whether an error is, or was caused by, a transient failure of network, disk or memory."""
    cause: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return False
        if isinstance(cause, MemoryError) or _NETWORK & {each.__name__ for each in type(cause).__mro__}:
            return True
        if isinstance(cause, OSError) and cause.errno not in _LASTING:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def die_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies, if the parent requested it (Linux ``prctl(2)``)."""
    expected = os.environ.get(PARENT_PID_VARIABLE)
    if expected is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        _log.warning("prctl(PR_SET_PDEATHSIG) failed: this process will outlive a killed parent")
    if os.getppid() != int(expected):  # the parent died before the call above
        sys.exit(ExitCode.TRANSIENT)


def _log_fields(request: AnyRequest) -> dict[str, object]:
    """Return the fields of a request that are logged."""
    included = {"recipe", "seed", "rank", "run", "subject", "threads", "server_url"}
    fields = request.model_dump(include=included, exclude_none=True)
    return {"sweep": request.sweep.name, "spec_hash": request.sweep.spec_hash, "store": request.store, **fields}


def _raise_terminated(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _observable(
    request: AnyRequest, work_dir: Path, metrics: Callable[[AnyRequest, Path], Sequence[Exposition]] | None
) -> AbstractContextManager[None]:
    setting = os.environ.get(METRICS_PORT_VARIABLE)
    if not setting:
        return nullcontext()
    from surogate_bench.processes.metrics_endpoint import serving_metrics  # noqa: PLC0415 - prometheus_client, only with a port

    return serving_metrics(setting, work_dir, metrics(request, work_dir) if metrics else ())


def _write_termination(work_dir: Path, reason: str, message: str) -> None:
    termination = Termination(reason=reason, message=message.encode(errors="replace").decode())
    try:
        write_atomically(work_dir / TERMINATION_FILE, termination.to_json(_TERMINATION_BYTES))
        if log := os.environ.get(TERMINATION_LOG_VARIABLE):
            Path(log).write_bytes(termination.to_json(_TERMINATION_LOG_BYTES))  # a mount cannot be replaced
    except OSError:
        _log.exception("the reason could not be written")
