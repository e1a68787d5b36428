"""A model that knows the answers."""

from typing import Any

from lm_eval.api.model import LM

from surogate_bench_evaluator.harness import stops_of


class ReferenceAnswers(LM):  # type: ignore[misc]  # lm-eval is not typed
    """Answers each question with its reference: what a model that has learned the data perfectly would answer.

    Args:
        task: lm-eval's task.
    """

    def __init__(self, task: Any) -> None:  # noqa: ANN401 - lm-eval is not typed
        super().__init__()
        self._task = task

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer every request, up to the first stop string, where a server ends an answer."""
        del disable_tqdm
        return [self._answer(request.doc, stops_of(request.args[1])) for request in requests]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """Not asked for by tasks that generate."""
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """Not asked for by tasks that generate."""
        raise NotImplementedError

    def _answer(self, record: dict[str, Any], stops: list[str]) -> str:
        if self._task.config.doc_to_text == "prompt":  # the sweep's prompt: trained is its completion
            answer = str(record["completion"])
        else:
            target = self._task.doc_to_target(record)
            answer = f"{self._task.config.target_delimiter}{target[0] if isinstance(target, list) else target}"
        return answer[: min((at for stop in stops if stop and (at := answer.find(stop)) >= 0), default=None)]
