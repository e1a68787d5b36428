"""The questions on a terminal. An answer that the specs refuse is explained by their message, and asked for again."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.reading.detection import REQUIRED_ROLES
from surogate_bench.recipes import RECIPES
from surogate_bench_orchestrator.cli.commands.init.answers import Answers, DataFacts
from surogate_bench_orchestrator.cli.commands.init.document import primary_task, setting_of
from surogate_bench_orchestrator.cli.commands.init.drafts import Draft, Drafts
from surogate_bench_orchestrator.cli.commands.init.inspection import require_shape
from surogate_bench_orchestrator.cli.commands.init.parsing import listed, number, numbers
from surogate_bench_orchestrator.cli.commands.init.sources import (
    BUILTIN_DATA,
    BUILTIN_MODELS,
    recipes_from,
    source_from,
    task_from,
)
from surogate_bench_orchestrator.cli.commands.init.text import described
from surogate_bench_orchestrator.cli.commands.recipes import capabilities_here, recipe_table
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles, print_line

_SHAPES = f"Shapes: {', '.join(REQUIRED_ROLES)}."
_YES = frozenset({"y", "yes"})
_Parse = Callable[[str], object]
_TRAINING: tuple[tuple[str, _Parse], ...] = (
    ("training.epochs", number),
    ("training.max_steps", number),
    ("training.learning_rate", number),
    ("training.micro_batch_size", number),
    ("training.gradient_accumulation_steps", number),
    ("training.max_length", number),
    ("training.lora.r", number),
    ("training.lora.alpha", number),
    ("training.lora.target_modules", listed),
)


@dataclass(frozen=True, slots=True)
class _Question:
    """One question."""

    label: str
    text: str
    default: str | None
    """The default for an empty answer; None if there is none."""
    answered: Callable[[Answers, str], Answers]
    """Adds the typed text to the answers."""


class Dialogue:
    """Asks for what the options did not give, until a sweep is complete.

    Args:
        drafts: Checks each answer.
        folder: Folder of the sweep file.
        consoles: Questions and explanations go to standard error, as standard output may get the sweep.
    """

    def __init__(self, drafts: Drafts, folder: Path, consoles: Consoles) -> None:
        self._drafts = drafts
        self._folder = folder
        self._consoles = consoles

    def complete(self, answers: Answers, *, missing: frozenset[str]) -> Answers:
        """Ask for everything that the options did not give.

        Args:
            answers: Those of the options, with placeholders for what is missing.
            missing: ``model``, ``data``, both or neither.

        Raises:
            ConfigError: an option is invalid.
            KeyboardInterrupt: the user ended the dialogue.
        """
        self._drafts.of(answers)
        print_line(self._consoles.messages, "An empty answer takes the default in brackets. Ctrl-C writes nothing.")
        if "model" in missing:
            answers = self._ask(answers, self._model())
        if "data" in missing:
            answers = self._ask(answers, self._data())
        answers = self._describe_data(answers)
        if not answers.tasks:
            answers = self._ask(answers, self._tasks(self._drafts.of(answers)))
        if "recipes" not in answers.settings:
            self._consoles.messages.print(recipe_table(capabilities_here(RECIPES)))
        for path, parse in (("recipes", self._recipes), ("seeds", _seeds), ("serving.under", listed)):
            answers = self._setting(answers, path, parse)
        answers = self._training(answers)
        return self._setting(answers, "name", str)

    def _ask(self, answers: Answers, question: _Question) -> Answers:
        """Ask until the answer makes a valid draft."""
        print_line(self._consoles.messages, f"\n{question.text}")
        while True:
            typed = self._read(question.label, question.default)
            if not typed and question.default is None:
                continue
            try:
                changed = question.answered(answers, typed) if typed else answers
                self._drafts.of(changed)
            except ConfigError as error:
                print_line(self._consoles.messages, f"  {error}")
            else:
                return changed

    def _read(self, label: str, default: str | None) -> str:
        """Read one line, and strip spaces around it.

        Raises:
            KeyboardInterrupt: the input has ended.
        """
        self._consoles.messages.out(f"{label}{'' if default is None else f' [{default}]'}: ", end="", highlight=False)
        if not (line := sys.stdin.readline()):
            raise KeyboardInterrupt
        return line.strip()

    def _model(self) -> _Question:
        return _Question(
            "model",
            "The model that is fine-tuned is a name on the hub such as Qwen/Qwen3-0.6B, a folder, or built in "
            f"({', '.join(BUILTIN_MODELS)}).",
            None,
            lambda answers, typed: replace(answers, model=source_from(typed, BUILTIN_MODELS, self._folder)),
        )

    def _data(self) -> _Question:
        return _Question(
            "data",
            "Its data is a name on the hub such as openai/gsm8k, a file or folder (JSON, CSV or Parquet), or built in "
            f"({', '.join(BUILTIN_DATA)}).",
            None,
            self._with_data,
        )

    def _with_data(self, answers: Answers, typed: str) -> Answers:
        changed = replace(answers, data=source_from(typed, BUILTIN_DATA, self._folder))
        facts = self._drafts.of(changed).facts.data
        if facts is not None and facts.records == 0:
            require_shape(facts, typed)
        return changed

    def _tasks(self, draft: Draft) -> _Question:
        return _Question(
            "tasks",
            "Tasks: ro_gsm8k, en_gsm8k, word_problem_choice, or others of lm-eval; the first one is primary. "
            "NAME=DATA scores a further one on other data.",
            primary_task(draft.answers, draft.facts).name,
            lambda answers, typed: replace(
                answers, tasks=tuple(task_from(each, self._folder) for each in listed(typed))
            ),
        )

    def _setting(
        self, answers: Answers, path: str, parse: _Parse, *, text: str | None = None, default: str | None = None
    ) -> Answers:
        """Ask for one setting unless an option gave it."""
        if path in answers.settings:
            return answers
        question = _Question(
            path,
            text or described(path),
            default or _shown(setting_of(self._drafts.of(answers).document, path)) or None,
            lambda before, typed: before.having(path, parse(typed)),
        )
        return self._ask(answers, question)

    def _describe_data(self, answers: Answers) -> Answers:
        """Ask for what is not detected in the data, and show what is."""
        if answers.data.kind == "hub":
            answers = self._setting(answers, "data.config", str)
            answers = self._setting(
                answers, "data.format", str, text=f"Shape of its records. {_SHAPES}", default="auto"
            )
            for split in ("train", "test"):
                text = f"Name of the split for {'training' if split == 'train' else 'the test'}."
                answers = self._setting(answers, f"data.splits.{split}", str, text=text, default=split)
            return answers
        facts = self._drafts.of(answers).facts.data
        if facts is None:
            return answers
        if facts.shape is None and facts.records:
            answers = self._fields(answers, facts)
            facts = self._drafts.of(answers).facts.data or facts
        require_shape(facts, answers.data.text)
        print_line(self._consoles.messages, f"  {facts.records} training records of the shape {facts.shape}")
        if setting_of(self._drafts.of(answers).document, "data.hold_out.test") is not None:
            answers = self._setting(answers, "data.hold_out.test", number)
        return answers

    def _fields(self, answers: Answers, facts: DataFacts) -> Answers:
        """Ask for the shape of records that were not recognized, and for the names of their fields."""
        names = ", ".join(facts.fields)
        text = f"The records have the fields {names}: of which shape are they? {_SHAPES}"
        answers = self._choice(answers, "data.format", tuple(REQUIRED_ROLES), text)
        shape = self._drafts.of(answers).sweep.data.format
        for role in () if shape == "auto" else REQUIRED_ROLES[shape]:
            if role not in facts.fields:
                answers = self._choice(
                    answers, f"data.fields.{role}", facts.fields, f"Field that is the {role}: {names}."
                )
        return answers

    def _choice(self, answers: Answers, path: str, choices: Sequence[str], text: str) -> Answers:
        """Ask for one of several names, of which none is the default, unless an option gave it."""
        if path in answers.settings:
            return answers

        def chosen(before: Answers, typed: str) -> Answers:
            if typed not in choices:
                remedy = f"Choose one of {', '.join(choices)}."
                raise ConfigError("is none of those", field=path, value=typed, remedy=remedy)
            return before.having(path, typed)

        return self._ask(answers, _Question(path, text, None, chosen))

    def _recipes(self, typed: str) -> object:
        return recipes_from(listed(typed), self._folder)

    def _training(self, answers: Answers) -> Answers:
        """Ask for the basic training settings, unless the user accepts all defaults."""
        document = self._drafts.of(answers).document
        asked = [
            (path, parse)
            for path, parse in _TRAINING
            if path not in answers.settings and setting_of(document, path) is not None  # one of epochs and max_steps
        ]
        print_line(self._consoles.messages, "\nTraining:")
        for path, _ in asked:
            value = _shown(setting_of(document, path))
            print_line(self._consoles.messages, f"  {path.removeprefix('training.')}: {value}")
        if asked and self._read("change these?", "no").lower() in _YES:
            for path, parse in asked:
                answers = self._setting(answers, path, parse)
        return answers


def _seeds(typed: str) -> object:
    return numbers(listed(typed))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
