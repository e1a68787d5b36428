"""The answers received so far."""

import time
from collections.abc import Callable, Sequence

_REPORT_EVERY_S = 0.5


class Answers:
    """Answers by prompt, stored as they arrive, so that the loss of a server loses only the requests in flight.

    Decoding is greedy: a prompt has one answer, however often it is sent. This is a cache hook in lm-eval's sense
    (``lm_eval.api.model.CacheHook``), which calls ``add_partial`` for each answer.

    Args:
        report: Called with (answers so far, prompts in all), at most twice a second and at both ends.
    """

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._by_prompt: dict[str, str] = {}
        self._total = 0
        self._reported_at = -_REPORT_EVERY_S

    def expect(self, prompts: Sequence[str]) -> None:
        """Register all prompts that will be answered."""
        self._total = len(set(prompts))
        self._report(len(self), self._total)

    def add_partial(self, _method: str, request: Sequence[object], answer: str) -> None:
        """Store one answer; the first item of the request is its prompt."""
        prompt = request[0]
        self._by_prompt[str(getattr(prompt, "prompt", prompt))] = answer  # lm-eval wraps messages
        now = time.monotonic()
        if len(self) == self._total or now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._report(len(self), self._total)

    def __contains__(self, prompt: str) -> bool:
        return prompt in self._by_prompt

    def __getitem__(self, prompt: str) -> str:
        return self._by_prompt[prompt]

    def __len__(self) -> int:
        return len(self._by_prompt)
