"""The answers received so far."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Self

_REPORT_EVERY_S = 0.5

Key = str | tuple[str, str]
"""A prompt, or a prompt with a continuation."""


class Answer(str):
    """The text of an answer, and how it ended: lm-eval hands it on as text, up to the samples that it records.

    Args:
        text: The answer.
        finish_reason: Reason that the server states: ``stop``, or ``length`` where max_gen_toks cut it off; None if it
            is not known.
        tokens: Number of generated tokens; None if it is not known.
    """

    __slots__ = ("finish_reason", "tokens")

    def __new__(cls, text: str, *, finish_reason: str | None = None, tokens: int | None = None) -> Self:
        """Make the text; see the class."""
        answer = super().__new__(cls, text)
        answer.finish_reason, answer.tokens = finish_reason, tokens
        return answer

    finish_reason: str | None
    tokens: int | None


Choice = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding gives it."""


class Answers:
    """Answers by prompt, or by prompt and continuation, stored as they arrive.

    The loss of a server loses only the requests in flight. Decoding is greedy: a prompt has one answer, however often
    it is sent. This is a cache hook in lm-eval's sense (``lm_eval.api.model.CacheHook``), which calls ``add_partial``
    for each answer.

    Args:
        report: Called with (answers so far, prompts in all), at most twice a second and at both ends.
    """

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._texts: dict[str, str] = {}
        self._choices: dict[tuple[str, str], Choice] = {}
        self._total = 0
        self._reported_at = -_REPORT_EVERY_S

    def expect(self, keys: Sequence[Key]) -> None:
        """Register everything that will be answered."""
        self._total = len(set(keys))
        self._report(len(self), self._total)

    def add_partial(self, method: str, request: Sequence[Any], answer: str | Choice) -> None:
        """Store one answer; the first item of the request is its prompt, for a choice the second its continuation."""
        prompt = request[0]
        text = str(getattr(prompt, "prompt", prompt))  # lm-eval wraps messages
        del method  # the answer shows it
        if isinstance(answer, str):
            self._texts[text] = answer
        else:
            self._choices[text, str(request[1])] = answer
        now = time.monotonic()
        if len(self) == self._total or now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._report(len(self), self._total)

    def __contains__(self, key: Key) -> bool:
        return key in self._texts if isinstance(key, str) else key in self._choices

    def text(self, prompt: str) -> str:
        """Return the answer to a prompt."""
        return self._texts[prompt]

    def choice(self, key: tuple[str, str]) -> Choice:
        """Return the score of a continuation of a prompt."""
        return self._choices[key]

    def __len__(self) -> int:
        return len(self._texts) + len(self._choices)
