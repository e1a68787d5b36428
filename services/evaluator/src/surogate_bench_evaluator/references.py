"""A model that answers with the reference answers."""

from typing import Any

from lm_eval.api.model import LM
from typing_extensions import override

from surogate_bench_evaluator.harness import stops_of, unusable


class ReferenceAnswers(LM):  # type: ignore[misc]  # lm-eval is not typed
    """Answers each question with its reference answer, up to the first stop string, as a perfect model would.

    Args:
        task: The task, as lm-eval loaded it.
    """

    def __init__(self, task: Any) -> None:  # noqa: ANN401 - lm-eval is not typed
        super().__init__()
        self._task = task

    @override
    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        del disable_tqdm
        return [self._answer(request.doc, stops_of(request.args[1])) for request in requests]

    @override
    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        del disable_tqdm
        for request in requests:
            self._require_prompt(request)
        return [(0.0, True) if self._is_right(request) else (-1e6, False) for request in requests]

    def _require_prompt(self, request: Any) -> None:  # noqa: ANN401 - lm-eval's instance
        """Check that a choice follows a prompt.

        Raises:
            ConfigError: there is none.
        """
        if not str(request.args[0]).strip():
            raise unusable(
                self._task.task_name,
                f"it asks for a choice without a prompt, of record {request.doc_id + 1}, for which vLLM gives no "
                "log-likelihood",
            )

    def _is_right(self, request: Any) -> bool:  # noqa: ANN401 - lm-eval's instance
        if self._task.multiple_input:  # each choice is a prompt of its own, and doc_to_text the number of the right one
            return bool(request.idx == self._task.doc_to_text(request.doc))
        target = self._task.doc_to_target(request.doc)
        right = target if isinstance(target, list) else [target]
        choice = self._task.doc_to_choice(request.doc)[request.idx]
        return request.idx in right or choice in right

    @override
    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        raise NotImplementedError  # generation tasks do not use it

    def _answer(self, record: dict[str, Any], stops: list[str]) -> str:
        if self._task.config.doc_to_text == "prompt":  # the sweep's prompt, for which the completion is trained
            answer = str(record["completion"])
        else:
            target = self._task.doc_to_target(record)
            answer = f"{self._task.config.target_delimiter}{target[0] if isinstance(target, list) else target}"
        return answer[: min((at for stop in stops if stop and (at := answer.find(stop)) >= 0), default=None)]
