"""Align the samples of several runs by question."""

from collections.abc import Mapping, Sequence
from typing import Literal

from surogate_bench.errors import PermanentError
from surogate_bench.results import SampleLine


def aligned_outcomes(
    samples: Mapping[str, Sequence[SampleLine]], *, match: Literal["strict", "flexible"] = "strict"
) -> dict[str, list[bool]]:
    """Return the outcomes (right or wrong) by run, ordered by the index of the question.

    Raises:
        PermanentError: two runs have different questions, or one has a question twice.
    """
    ordered = {run: sorted(lines, key=lambda line: line.index) for run, lines in samples.items()}
    questions_of = {run: [(line.index, line.question, line.target) for line in lines] for run, lines in ordered.items()}
    first = next(iter(questions_of), None)
    for run, questions in questions_of.items():
        if len({index for index, *_ in questions}) != len(questions):
            raise PermanentError(f"run {run} has two answers to one question")
        if first is not None and questions != questions_of[first]:
            raise PermanentError(f"runs {first} and {run} were not asked the same questions: they cannot be compared")
    return {
        run: [line.strict_match if match == "strict" else line.flexible_match for line in lines]
        for run, lines in ordered.items()
    }
