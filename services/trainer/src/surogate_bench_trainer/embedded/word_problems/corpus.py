"""Problems in GSM8K's format, each assigned to exactly one split."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal, TypeAlias, get_args

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.embedded.word_problems import english, romanian
from surogate_bench_trainer.embedded.word_problems.sampling import sample_scenario
from surogate_bench_trainer.embedded.word_problems.scenario import RenderedScenario, Scenario

Language: TypeAlias = Literal["en", "ro"]
SplitName: TypeAlias = Literal["train", "validation", "test"]

MAX_SPLIT_SIZE = 100_000
"""Most problems that ``split`` returns; each split has many more distinct ones."""

_RENDER: dict[Language, Callable[[Scenario], RenderedScenario]] = {"en": english.render, "ro": romanian.render}
_QUARTERS: tuple[SplitName, ...] = ("train", "train", "validation", "test")
_PROMPTS: dict[Language, str] = {"en": "Question: {}\nAnswer:", "ro": "Întrebare: {}\nRăspuns:"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question and its worked answer: one step per line, then ``#### N`` (GSM8K's format)."""

    question: str
    answer: str


def prompt_text(question: str, *, language: Language) -> str:
    """Return the prompt of a question, which ``completion_text`` of the answer follows."""
    return _PROMPTS[language].format(question)


def completion_text(answer: str) -> str:
    """Return the text that follows ``prompt_text``: the answer after a space."""
    return f" {answer}"


def split(name: SplitName, *, language: Language, size: int, seed: int = 0) -> list[Problem]:
    """Return the first ``size`` distinct problems of a split, which are the same on every machine.

    Problem i of a split is the same problem in every language, and no question is in two splits of a language,
    for all sizes and seeds. A smaller split is a prefix of a larger one with the same seed.

    Raises:
        ConfigError: the name or language is unknown, or the size is not between 1 and ``MAX_SPLIT_SIZE``.
    """
    if not 1 <= size <= MAX_SPLIT_SIZE:
        remedy = f"Ask for 1 to {MAX_SPLIT_SIZE} problems."
        raise ConfigError("a split of word problems cannot have this size", field="size", value=size, remedy=remedy)
    return list(islice(iter_problems(name, language=language, seed=seed), size))


def iter_problems(name: SplitName, *, language: Language, seed: int = 0) -> Iterator[Problem]:
    """Yield distinct problems of a split endlessly, beginning with those of ``split``.

    Raises:
        ConfigError: the name or language is unknown.
    """
    _check("name", name, get_args(SplitName))
    _check("language", language, get_args(Language))
    return _iter_problems(name, language, seed)


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        remedy = f"Use one of {', '.join(known)}."
        raise ConfigError(f"no such {field} of word problems", field=field, value=value, remedy=remedy)


def _iter_problems(name: SplitName, language: Language, seed: int) -> Iterator[Problem]:
    rng = Random(f"word problems {name} {seed}")  # noqa: S311 - data, not secrets; a text seed gives the same problems everywhere
    yielded: set[bytes] = set()
    while True:
        scenario = sample_scenario(rng)
        # A scenario belongs to a split only if its question does in every language. So the text of a question alone
        # determines its split, which keeps the splits disjoint and the languages parallel.
        rendered: dict[Language, RenderedScenario] = {}
        for render_language, render in _RENDER.items():
            rendered[render_language] = render(scenario)
            if _split_of(rendered[render_language].question) != name:
                break
        else:
            key = _digest(rendered["en"].question)
            if key not in yielded:
                yielded.add(key)
                yield _problem(scenario, rendered[language])


def _problem(scenario: Scenario, rendered: RenderedScenario) -> Problem:
    lines = (*rendered.working, f"#### {scenario.steps[-1].result}")
    return Problem(question=rendered.question, answer="\n".join(lines))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _split_of(question: str) -> SplitName:
    return _QUARTERS[_digest(question)[0] % len(_QUARTERS)]
