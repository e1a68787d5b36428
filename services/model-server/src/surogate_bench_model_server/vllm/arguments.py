"""Check ``serving.extra_args`` with vLLM's own parser, before anything is trained.

Command line: ``python -m surogate_bench_model_server.vllm.arguments [ARGUMENT ...]`` exits with 0 if vLLM accepts the
arguments, with 2 and the reason on standard error if it does not, and with 4 if vLLM is not installed. Importing vLLM
takes several seconds, so callers run it only where there are arguments to check.
"""

import argparse
import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from surogate_bench.errors import BenchError, ConfigError, ExitCode, PermanentError
from surogate_bench.specs.evaluation import MANAGED_ARGUMENTS
from surogate_bench_model_server.vllm.command import vllm_version

_FIELD = "serving.extra_args"
_REMEDY = "Give arguments of `vllm serve` (version {version}), one list item for each argument or value."
_NOT_ALLOWED = {
    **{option.removeprefix("--").replace("-", "_"): remedy for option, remedy in MANAGED_ARGUMENTS.items()},
    "model_tag": "an item that is neither an option nor the value of one, or an option and its value in one list item",
    "trust_remote_code": "code from a model repository is never run",
    "headless": "the model server needs vLLM's HTTP API",
    "grpc": "the model server needs vLLM's HTTP API",
    "ssl_certfile": "the model server reaches vLLM over plain HTTP",
}
"""Parser destinations that extra arguments must not set, and why: a prefix (``--trust-rem``) or a file (``--config``)
sets them as the full name does."""

_NOT_GIVEN = object()
"""Stands for the default of an option: argparse sets defaults only where the namespace has no such attribute, and None
for an absent positional argument."""


def check_vllm_arguments(arguments: Sequence[str]) -> None:
    """Check extra arguments for vLLM's API server with vLLM's own parser. Nothing is loaded or started.

    Args:
        arguments: ``serving.extra_args``.

    Raises:
        ConfigError: vLLM refuses them, or they set what the model server sets itself.
        PermanentError: vLLM is not installed here.
    """
    if not arguments:
        return
    cli = _command_line_module()
    given = _parse(cli, arguments)
    for destination, reason in _NOT_ALLOWED.items():
        value = getattr(given, destination)
        if value is not None and value is not _NOT_GIVEN:
            raise refused(f"set {destination}, which is not allowed: {reason}", arguments)
    try:
        cli.validate_parsed_serve_args(given)
    except (ValueError, TypeError) as error:
        raise refused(f"are refused by vLLM: {_one_line(str(error))}", arguments) from error


def _command_line_module() -> ModuleType:
    """Import vLLM's command line.

    Raises:
        PermanentError: vLLM is not installed.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("vllm.entrypoints.launchers.cli_args")
    except ModuleNotFoundError as error:
        raise PermanentError(f"vLLM's argument parser cannot be imported: {error}") from error


def _parse(cli: ModuleType, arguments: Sequence[str]) -> argparse.Namespace:
    namespace = argparse.Namespace(**dict.fromkeys(_NOT_ALLOWED, _NOT_GIVEN))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            parser: argparse.ArgumentParser = cli.make_arg_parser(cli.FlexibleArgumentParser(prog="vllm"))
            return parser.parse_args(list(arguments), namespace)
    except SystemExit as error:  # argparse's way; 0 after --help
        reason = errors.getvalue().rpartition(": error: ")[2] if error.code else "would print help and end"
        raise refused(f"are refused by vLLM: {_one_line(reason)}", arguments) from error
    except IndexError as error:  # of `--a.b` as last item
        raise refused("are refused by vLLM: the last argument has no value", arguments) from error
    except (ValueError, TypeError, AssertionError, OSError) as error:  # of --config
        raise refused(f"are refused by vLLM: {_one_line(str(error))}", arguments) from error


def refused(problem: str, arguments: Sequence[str]) -> ConfigError:
    """Make the error that names the setting, its value and the remedy."""
    return ConfigError(problem, field=_FIELD, value=" ".join(arguments), remedy=_REMEDY.format(version=vllm_version()))


def _one_line(text: str) -> str:
    """Join the lines of a message, without pydantic's link to its documentation."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip() and "errors.pydantic.dev" not in line)


def main(arguments: Sequence[str]) -> int:
    """Check the arguments; returns the exit code."""
    try:
        check_vllm_arguments(arguments)
    except ConfigError as error:
        print(error.problem, file=sys.stderr)  # noqa: T201 - the command's output
        return error.exit_code
    except BenchError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command's output
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
