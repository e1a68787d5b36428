"""Ask vLLM's own parser whether it takes the server's arguments.

``python -m surogate_bench_model_server.vllm_arguments ANSWER EXTRA ARGUMENT…`` writes into the file ANSWER why the last
EXTRA arguments are refused; nothing where they are not. A process of its own: it imports vLLM, which takes seconds.
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

from surogate_bench.specs.evaluation import MANAGED_ARGUMENTS

_MODEL_TAG = "model_tag"
"""vLLM's positional argument, which would replace ``--model``."""


class _RefusedError(Exception):
    """The parser does not take an argument."""


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM is not typed here
    def error(self, message: str) -> NoReturn:
        raise _RefusedError(message)


def refusal(options: list[str], extra: list[str]) -> str:
    """Say why vLLM refuses ``extra`` after ``options``; empty where it takes them."""
    parser = make_arg_parser(_Parser(prog="vllm"))
    before = parser.parse_args(list(options))
    try:
        after = parser.parse_args([*options, *extra])
        validate_parsed_serve_args(after)
    except (_RefusedError, argparse.ArgumentError, ValueError, TypeError) as error:
        return str(error)
    except SystemExit:
        return "with them it does not serve, but prints something and ends"
    return _override(before, after)


def _override(before: argparse.Namespace, after: argparse.Namespace) -> str:
    """Name an option that is set by other means and yet changed, as by an abbreviation of it."""
    for option, instead in {**MANAGED_ARGUMENTS, _MODEL_TAG: "set model"}.items():
        name = option.removeprefix("--").replace("-", "_")
        if getattr(before, name, None) != getattr(after, name, None):
            return f"they change {option}: {instead}"
    return ""


def main() -> None:
    """Write the answer."""
    answer, count, *options = sys.argv[1:]
    extra = options[len(options) - int(count) :]
    Path(answer).write_text(refusal(options[: len(options) - int(count)], extra), encoding="utf-8")


if __name__ == "__main__":
    main()
