"""The embedded word problems: right arithmetic, disjoint and stable splits, the same problems in both languages."""

import hashlib
import operator
import os
import re
import subprocess
import sys
from functools import cache
from itertools import combinations
from random import Random
from typing import get_args

import pytest

from surogate_bench.errors import ConfigError
from surogate_bench_trainer.embedded.word_problems import (
    MAX_SPLIT_SIZE,
    Language,
    Problem,
    SplitName,
    completion_text,
    equations,
    plain_romanian,
    prompt_text,
    split,
)

LANGUAGES: tuple[Language, ...] = get_args(Language)
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
MANY = 600
EQUATION = re.compile(r"(\d+)([+*-])(\d+)=(\d+)")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@cache
def problems(name: SplitName, language: Language, seed: int) -> tuple[Problem, ...]:
    """Many problems, generated once for all tests."""
    return tuple(split(name, language=language, size=MANY, seed=seed))


def whole(problem: Problem) -> str:
    return f"{problem.question}\n{problem.answer}"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", SPLITS)
def test_every_step_is_right_and_the_answer_is_the_last_steps_result(language: Language, name: SplitName) -> None:
    for problem in problems(name, language, 1):
        *steps, final = problem.answer.split("\n")
        assert 1 <= len(steps) <= 3
        results = []
        for step in steps:
            ((left, operation, right, result),) = EQUATION.findall(step)
            assert OPERATIONS[operation](int(left), int(right)) == int(result) > 0, step
            results.append(result)
        assert final == f"#### {results[-1]}"


def test_every_number_of_steps_from_one_to_three_is_common() -> None:
    counts = [problem.answer.count("\n") for problem in problems("train", "en", 0)]
    assert all(counts.count(steps) > MANY / 10 for steps in (1, 2, 3))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_question_is_in_two_splits_whatever_the_sizes_and_seeds(language: Language) -> None:
    questions = {
        name: {problem.question for seed in (0, 1) for problem in problems(name, language, seed)} for name in SPLITS
    }
    for first, second in combinations(SPLITS, 2):
        assert questions[first].isdisjoint(questions[second])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_questions_of_a_split_are_distinct(language: Language) -> None:
    assert len({problem.question for problem in problems("test", language, 0)}) == MANY


def test_a_smaller_split_is_a_prefix_of_a_larger_one() -> None:
    assert split("test", language="ro", size=40) == split("test", language="ro", size=200)[:40]


def test_seeds_give_different_problems() -> None:
    assert split("train", language="en", size=20, seed=0) != split("train", language="en", size=20, seed=1)


def test_both_languages_have_the_same_problems() -> None:
    pairs = zip(*(problems("validation", language, 0) for language in LANGUAGES), strict=True)
    for in_english, in_romanian in pairs:
        assert EQUATION.findall(in_english.answer) == EQUATION.findall(in_romanian.answer)
        assert in_english.answer.split("\n")[-1] == in_romanian.answer.split("\n")[-1]


def test_splits_do_not_depend_on_the_process_that_generates_them() -> None:
    program = (
        "import hashlib; from surogate_bench_trainer.embedded.word_problems import split; "
        "print(hashlib.sha256(repr(split('test', language='ro', size=50)).encode()).hexdigest())"
    )
    here = hashlib.sha256(repr(split("test", language="ro", size=50)).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == here


@pytest.mark.parametrize(
    ("language", "digest"),
    [
        ("en", "18afb240193efc5bddb7851b46bfe96caefa6e59a9f4641cb0244c491a98bf35"),
        ("ro", "407afd81398463dedc7fec12bd378aa635f00a2f688aaa58db70e84f4b9c73aa"),
    ],
)
def test_the_test_split_is_the_one_that_published_figures_refer_to(language: Language, digest: str) -> None:
    text = "\n\n".join(whole(problem) for problem in split("test", language=language, size=500))
    assert hashlib.sha256(text.encode()).hexdigest() == digest


@pytest.mark.parametrize("size", [0, -1, MAX_SPLIT_SIZE + 1])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"size: .*{size}.*1 to {MAX_SPLIT_SIZE}"):
        split("train", language="en", size=size)


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"name: .*'dev'.*train, validation, test"):
        split("dev", language="en", size=1)  # what a YAML file could say


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"language: .*'fr'.*en, ro"):
        split("train", language="fr", size=1)  # what a YAML file could say


def test_prompts_and_completions_follow_each_other_with_one_space() -> None:
    assert prompt_text("1+1?", language="en") + completion_text("#### 2") == "Question: 1+1?\nAnswer: #### 2"
    assert prompt_text("1+1?", language="ro") + completion_text("#### 2") == "Întrebare: 1+1?\nRăspuns: #### 2"


def test_bare_equations_are_right() -> None:
    rng = Random(0)
    for _ in range(MANY // 10):
        lines = equations(rng).split("\n")
        for line in lines:
            match = EQUATION.fullmatch(line)
            assert match is not None
            left, operation, right, result = match.groups()
            assert OPERATIONS[operation](int(left), int(right)) == int(result) > 0


def test_plain_romanian_asks_nothing_and_computes_nothing() -> None:
    rng = Random(0)
    assert not any(re.search(r"[?=#]|Întrebare|Răspuns", plain_romanian(rng)) for _ in range(MANY))


def test_english_nouns_agree_with_their_numbers() -> None:
    for problem in split("train", language="en", size=MANY):
        for number, noun in re.findall(r"\b(\d+) (?:more |fewer )?([a-z]+)", whole(problem)):
            assert noun.endswith("s") == (number != "1"), whole(problem)
        assert not re.search(r"\bThere are \d+-\d+=1\b", problem.answer)
