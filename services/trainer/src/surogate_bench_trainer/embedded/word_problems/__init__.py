"""Grade-school word problems in English and Romanian: the embedded data set, generated instead of shipped.

A problem is sampled as a language-neutral scenario (``scenario``, ``sampling``), rendered as text (``english``,
``romanian``) and assigned to exactly one split (``corpus``). All functions are pure.
"""

from surogate_bench_trainer.embedded.word_problems.corpus import (
    MAX_SPLIT_SIZE,
    Language,
    Problem,
    SplitName,
    completion_text,
    iter_problems,
    prompt_text,
    split,
)
from surogate_bench_trainer.embedded.word_problems.plain_text import equations, plain_romanian

__all__ = [
    "MAX_SPLIT_SIZE",
    "Language",
    "Problem",
    "SplitName",
    "completion_text",
    "equations",
    "iter_problems",
    "plain_romanian",
    "prompt_text",
    "split",
]
