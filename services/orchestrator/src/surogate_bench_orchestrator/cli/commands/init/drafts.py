"""Drafts: the sweep made from the answers so far, checked as `surogate-bench validate` checks a file."""

import copy
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.strict_yaml import StrictYamlError, read_yaml
from surogate_bench.specs.yaml_io import sweep_in
from surogate_bench_orchestrator.cli.commands.init.answers import Answers, Facts
from surogate_bench_orchestrator.cli.commands.init.document import Document, document_of
from surogate_bench_orchestrator.cli.commands.init.inspection import facts_of
from surogate_bench_orchestrator.cli.commands.init.text import text_of
from surogate_bench_orchestrator.cli.sweep_file import require_local_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A valid sweep."""

    answers: Answers
    facts: Facts
    document: Document
    text: str
    sweep: RecipeSweep


class Drafts:
    """Makes drafts, and reads the files of each data set once.

    Args:
        folder: Folder of the sweep file.
        default_name: Name of the sweep unless it is answered; made of model and data if None.
    """

    def __init__(self, folder: Path, default_name: str | None) -> None:
        self._folder = folder.resolve()
        self._name = default_name
        self._facts: dict[tuple[str, str], Facts] = {}

    def of(self, answers: Answers) -> Draft:
        """Return the draft of answers.

        Raises:
            ConfigError: an answer is invalid, or a local file is missing or malformed.
        """
        stated = self._sweep(copy.deepcopy(document_of(answers, Facts(), default_name=self._name)))
        facts = self._facts_of(stated)
        document = document_of(answers, facts, default_name=self._name)
        text = text_of(document)
        sweep = self._sweep(_read(text))
        require_local_files(sweep)
        return Draft(answers=answers, facts=facts, document=document, text=text, sweep=sweep)

    def _sweep(self, document: Document) -> RecipeSweep:
        return sweep_in(document, self._folder)

    def _facts_of(self, sweep: RecipeSweep) -> Facts:
        key = (sweep.model.model_dump_json(), sweep.data.model_dump_json())
        if key not in self._facts:
            self._facts[key] = facts_of(sweep)
        return self._facts[key]


def _read(text: str) -> Document:
    try:
        document = read_yaml(text.encode())
    except StrictYamlError as error:
        raise ConfigError(
            f"cannot be written as YAML: {error}", field="sweep", remedy="Correct that answer."
        ) from error
    if not isinstance(document, dict):
        raise TypeError(f"the document of a sweep is a mapping, not {type(document).__name__}")
    return document
