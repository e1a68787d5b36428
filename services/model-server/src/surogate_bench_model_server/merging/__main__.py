"""``python -m surogate_bench_model_server.merging BASE ADAPTER TARGET COMMAND…``: merge, then become COMMAND."""

import os
import sys
from pathlib import Path

from safetensors import SafetensorError

from surogate_bench.errors import BenchError, ExitCode
from surogate_bench_model_server.merging.weights import write_merged


def merge(base: Path, adapter: Path, target: Path) -> int:
    """Write the merged model unless it exists; returns the exit code."""
    try:
        if not target.exists():
            changed, size = write_merged(base, adapter, target)
            print(f"merged: {changed} of {size} weights of the adapted layers changed", flush=True)  # noqa: T201 - log
    except BenchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - the log, which is quoted
        return error.exit_code
    except (OSError, SafetensorError) as error:  # a full disk is either
        print(f"OSError: the merged weights cannot be written: {error}", file=sys.stderr)  # noqa: T201 - as above
        return ExitCode.PERMANENT
    return ExitCode.OK


def main(arguments: list[str]) -> None:
    """Merge, and replace this process by the command."""
    base, adapter, target = (Path(path) for path in arguments[:3])
    command = arguments[3:]
    if code := merge(base, adapter, target):
        sys.exit(code)
    os.execv(command[0], command)  # noqa: S606 - the supervisor's command, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
