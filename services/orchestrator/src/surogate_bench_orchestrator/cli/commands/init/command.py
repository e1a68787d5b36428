"""The command: answers from options and questions, a draft, and the file."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.files import create_atomically
from surogate_bench.user_paths import require_current_folder
from surogate_bench_orchestrator.cli.commands.init.answers import (
    DEFAULT_FILE,
    STANDARD_OUTPUT,
    Answers,
    InitOptions,
    Source,
)
from surogate_bench_orchestrator.cli.commands.init.dialogue import Dialogue
from surogate_bench_orchestrator.cli.commands.init.document import has_test_records, keeps_its_data, valid_name
from surogate_bench_orchestrator.cli.commands.init.drafts import Draft, Drafts
from surogate_bench_orchestrator.cli.commands.init.inspection import require_shape
from surogate_bench_orchestrator.cli.commands.init.sources import BUILTIN_DATA, BUILTIN_MODELS, source_from, task_from
from surogate_bench_orchestrator.cli.commands.recipes import capabilities_here
from surogate_bench_orchestrator.cli.commands.validate import counted_runs
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line

_PLACEHOLDER = Source("hub", "not-answered")
"""Placeholder for model or data until the user is asked."""
_EXAMPLES: Mapping[str, str] = {"model": "Qwen/Qwen3-0.6B", "data": "openai/gsm8k"}


def write_sweep_file(options: InitOptions, consoles: Consoles) -> int:
    """Write a sweep file, and return the exit code.

    Raises:
        ConfigError: an option is invalid or missing, or there is such a file already.
    """
    is_printed = options.file == STANDARD_OUTPUT
    if not options.file.is_absolute():
        require_current_folder()
    if not is_printed:
        _require_absent(options)
    try:
        draft = _draft(options, consoles)
        if is_printed:
            consoles.output.out(draft.text, end="", highlight=False)
        else:
            _write(options, draft)
    except KeyboardInterrupt:
        print_line(consoles.messages, "\nsurogate-bench: interrupted; nothing was written")
        return ExitCode.INTERRUPTED
    _show_notes(draft, consoles)
    if not is_printed:
        _show_next(options.file, draft, consoles)
    return ExitCode.OK


def _draft(options: InitOptions, consoles: Consoles) -> Draft:
    folder = Path.cwd() if options.file == STANDARD_OUTPUT else options.file.parent
    named = options.file not in (STANDARD_OUTPUT, DEFAULT_FILE)
    drafts = Drafts(folder, valid_name(options.file.stem) if named else None)
    missing = frozenset(name for name in _EXAMPLES if getattr(options, name) is None)
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not options.yes
    answers = Answers(
        model=_PLACEHOLDER if options.model is None else source_from(options.model, BUILTIN_MODELS, folder),
        data=_PLACEHOLDER if options.data is None else source_from(options.data, BUILTIN_DATA, folder),
        tasks=tuple(task_from(each, folder) for each in options.tasks),
        settings=options.settings,
    )
    if asks:
        answers = Dialogue(drafts, folder, consoles).complete(answers, missing=missing)
    elif missing:
        name = sorted(missing, reverse=True)[0]  # the model first
        raise ConfigError(
            "is required, because there is no terminal to ask on" if not options.yes else "has no default",
            field=f"--{name}",
            remedy=f"For example --{name} {_EXAMPLES[name]}.",
        )
    draft = drafts.of(answers)
    if draft.facts.data is not None:
        require_shape(draft.facts.data, answers.data.text, draft.sweep.data.format)
    return draft


def _require_absent(options: InitOptions) -> None:
    if options.file.is_dir():
        raise ConfigError("is a folder", field="FILE", value=str(options.file), remedy="Give the name of a file.")
    if not options.file.parent.is_dir():
        raise ConfigError(
            "is in a folder that does not exist",
            field="FILE",
            value=str(options.file),
            remedy="Create its folder first.",
        )
    if not options.force and (options.file.exists() or options.file.is_symlink()):
        raise _present(options.file)


def _write(options: InitOptions, draft: Draft) -> None:
    try:
        create_atomically(options.file, draft.text.encode(), replace=options.force)
    except FileExistsError as error:
        raise _present(options.file) from error


def _present(file: Path) -> ConfigError:
    return ConfigError("exists", field="FILE", value=str(file), remedy="Give another name, or replace it by --force.")


def _show_notes(draft: Draft, consoles: Consoles) -> None:
    if keeps_its_data(draft.answers, draft.facts) and not has_test_records(draft.answers, draft.facts):
        task = draft.sweep.evaluation.task
        print_line(
            consoles.messages,
            f"The data has no answers that end with '#### N', so {task} scores questions of its own (docs/tasks.md).",
        )
    for recipe, here in capabilities_here(draft.sweep.recipes):
        if here.engine is None:
            print_line(consoles.messages, f"{recipe.name} cannot run on this machine: {here.note}")


def _show_next(file: Path, draft: Draft, consoles: Consoles) -> None:
    print_line(consoles.output, f"Wrote {file}: sweep {draft.sweep.name}, {counted_runs(draft.sweep)}. Next:")
    for command in ("validate --deep", "run"):
        print_line(consoles.output, f"  surogate-bench {command} {shlex.quote(str(file))}")
