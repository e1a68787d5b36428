"""Command line of the pre-training."""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from surogate_bench.errors import BenchError, ExitCode
from surogate_bench.processes.logs import configure_logging
from surogate_bench_trainer.embedded.pretrain.run import pretrain
from surogate_bench_trainer.embedded.pretrain.settings import PretrainSettings

_log = logging.getLogger(__name__)


def _parse(arguments: list[str] | None) -> tuple[Path, PretrainSettings]:
    defaults = PretrainSettings()
    parser = argparse.ArgumentParser(
        prog="python -m surogate_bench_trainer.embedded.pretrain",
        description="Pre-train the embedded base model (about 8 minutes on 2 idle cores).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the model")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="initial weights and order of the texts")
    parser.add_argument("--steps", type=_positive, default=defaults.steps, help="optimizer steps")
    parser.add_argument("--rows", type=_positive, default=defaults.rows, help="packed rows per step")
    parser.add_argument("--row-length", type=_positive, default=defaults.row_length, help="tokens per row")
    parser.add_argument("--matrix-lr", type=float, default=defaults.matrix_lr, help="peak learning rate of Muon")
    parser.add_argument("--other-lr", type=float, default=defaults.other_lr, help="peak learning rate of AdamW")
    parser.add_argument(
        "--validation-size", type=_positive, default=defaults.validation_size, help="validation problems per language"
    )
    parser.add_argument("--threads", type=_positive, default=defaults.threads, help="CPU threads")
    parser.add_argument("--compile", dest="compiled", action="store_true", help="use torch.compile; needs g++")
    given = vars(parser.parse_args(arguments))
    known = {field.name for field in fields(PretrainSettings)}
    return given["out"], PretrainSettings(**{name: value for name, value in given.items() if name in known})


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Pre-train a model, log its accuracies and return the exit code."""
    out, settings = _parse(arguments)
    configure_logging("pretrain")
    disable_progress_bar()
    try:
        record = pretrain(out, settings)
    except BenchError as error:
        _log.error("%s", error)
        return error.exit_code
    _log.info(
        "%s: English %.3f, Romanian %.3f exact match; %.0f s",
        out,
        record.english_accuracy,
        record.romanian_accuracy,
        record.seconds,
    )
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
