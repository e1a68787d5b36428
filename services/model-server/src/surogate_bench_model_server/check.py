"""Check ``serving.extra_args`` with vLLM's own parser, before anything is trained."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from surogate_bench.contract import LOOPBACK, VLLM_PORT
from surogate_bench.errors import ExitCode, TransientError
from surogate_bench.layout import manifest_key
from surogate_bench.processes.progress import Activity, Progress, write_progress
from surogate_bench.results import CheckResult
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench.stages.publication import new_manifest, publish_stage
from surogate_bench.stages.requests import CheckRequest
from surogate_bench.store.object_store import open_store
from surogate_bench_model_server.vllm.arguments import refused
from surogate_bench_model_server.vllm.command import Command, ServerSettings, detect_platform, vllm_command

_log = logging.getLogger(__name__)

_PARSER = "surogate_bench_model_server.vllm.arguments"
_TIMEOUT_S = 1800.0
"""Enough to import vLLM on a busy machine with a cold disk."""


def check_stage(request: CheckRequest, work_dir: Path) -> None:
    """Check the server's arguments with vLLM's parser, and publish the result.

    Raises:
        ConfigError: it refuses ``serving.extra_args``.
        TransientError: the store is unavailable, or the parser did not end.
    """
    store = open_store(request.store)
    prefix = request.layout.check(request.subject)
    if store.exists(manifest_key(prefix)):
        return
    write_progress(work_dir, Progress(phase=Activity.CHECKING))
    settings = ServerSettings(host=LOOPBACK, port=VLLM_PORT, platform=detect_platform(), threads=request.threads)
    location = ModelLocation(request.sweep.model.label)  # never loaded
    command = vllm_command(request.sweep, location, settings, inherited=os.environ)
    result = ask_parser(command, request.sweep.serving.extra_args)
    output = work_dir / "output"
    output.mkdir(parents=True, exist_ok=True)
    publish_stage(store, prefix, output, new_manifest(request, result))


def ask_parser(command: Command, extra: tuple[str, ...]) -> CheckResult:
    """Run vLLM's parser in a process with the server's environment.

    Args:
        command: Command that starts the server.
        extra: The user's part of its arguments.

    Raises:
        ConfigError: the parser refuses ``extra``.
        TransientError: it did not end.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _PARSER, *extra],
            env=command.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(f"vLLM's argument parser did not end within {_TIMEOUT_S:g} s") from error
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if done.returncode == ExitCode.BAD_INPUT:
        raise refused(last, extra)
    if done.returncode != ExitCode.OK:  # vLLM itself cannot be imported where there is no GPU, for example
        _log.warning("serving.extra_args could not be checked: vLLM's parser ended with exit code %d", done.returncode)
        return CheckResult(omitted=f"vLLM's parser ended with exit code {done.returncode}: {last}")
    return CheckResult()
