"""Problems in GSM8K format, each assigned to exactly one split."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal, TypeAlias, get_args

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.embedded.word_problems import english, romanian
from surogate_bench_trainer.embedded.word_problems.sampling import sample_scenario
from surogate_bench_trainer.embedded.word_problems.scenario import Scenario, Telling

Language: TypeAlias = Literal["en", "ro"]
SplitName: TypeAlias = Literal["train", "validation", "test"]

MAX_SPLIT_SIZE = 100_000
"""Most problems that ``split`` gives; each split holds many more distinct ones."""

_TELL: dict[Language, Callable[[Scenario], Telling]] = {"en": english.tell, "ro": romanian.tell}
_QUARTERS: tuple[SplitName, ...] = ("train", "train", "validation", "test")
_PROMPTS: dict[Language, str] = {"en": "Question: {}\nAnswer:", "ro": "Întrebare: {}\nRăspuns:"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question and its worked answer: one step a line, the last line ``#### N`` (GSM8K's format)."""

    question: str
    answer: str


def prompt_text(question: str, *, language: Language) -> str:
    """What a model is asked; ``completion_text`` of the answer follows it."""
    return _PROMPTS[language].format(question)


def completion_text(answer: str) -> str:
    """What a model should write after ``prompt_text``: the answer, set off by a space."""
    return f" {answer}"


def split(name: SplitName, *, language: Language, size: int, seed: int = 0) -> list[Problem]:
    """The first ``size`` distinct problems of a split, the same on every machine.

    Problem i of a split is the same problem in every language, and no question is in two splits of a language,
    whatever the sizes and seeds. A smaller split is a prefix of a larger one with the same seed.

    Raises:
        ConfigError: For an unknown name or language, or a size outside 1 to ``MAX_SPLIT_SIZE``.
    """
    if not 1 <= size <= MAX_SPLIT_SIZE:
        remedy = f"Ask for 1 to {MAX_SPLIT_SIZE} problems."
        raise ConfigError("a split of word problems cannot have this size", field="size", value=size, remedy=remedy)
    return list(islice(iter_problems(name, language=language, seed=seed), size))


def iter_problems(name: SplitName, *, language: Language, seed: int = 0) -> Iterator[Problem]:
    """Distinct problems of a split without end; ``split`` holds the first of them.

    Raises:
        ConfigError: For an unknown name or language.
    """
    _check("name", name, get_args(SplitName))
    _check("language", language, get_args(Language))
    return _iter_problems(name, language, seed)


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        remedy = f"Use one of {', '.join(known)}."
        raise ConfigError(f"no such {field} of word problems", field=field, value=value, remedy=remedy)


def _iter_problems(name: SplitName, language: Language, seed: int) -> Iterator[Problem]:
    rng = Random(f"word problems {name} {seed}")  # noqa: S311 - data, not secrets; a text seeds alike everywhere
    seen: set[bytes] = set()
    while True:
        scenario = sample_scenario(rng)
        # A scenario belongs to a split only if its question does in every language. So a question's text alone
        # decides where it can be, which keeps the splits disjoint, and the languages stay parallel.
        tellings: dict[Language, Telling] = {}
        for told_in, tell in _TELL.items():
            tellings[told_in] = tell(scenario)
            if _split_of(tellings[told_in].question) != name:
                break
        else:
            key = _digest(tellings["en"].question)
            if key not in seen:
                seen.add(key)
                yield _problem(scenario, tellings[language])


def _problem(scenario: Scenario, telling: Telling) -> Problem:
    lines = (*telling.working, f"#### {scenario.steps[-1].result}")
    return Problem(question=telling.question, answer="\n".join(lines))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _split_of(question: str) -> SplitName:
    return _QUARTERS[_digest(question)[0] % len(_QUARTERS)]
