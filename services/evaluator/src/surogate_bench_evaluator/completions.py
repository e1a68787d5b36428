"""lm-eval's ``local-completions`` model, which can continue after the loss of its server."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
from typing_extensions import override

from surogate_bench.contract import VLLM_COMPLETIONS_PATH, authorization
from surogate_bench.errors import PermanentError
from surogate_bench.results import CUT_OFF
from surogate_bench.specs.evaluation import EvaluationSpec
from surogate_bench_evaluator.answers import Answer, Answers, Choice
from surogate_bench_evaluator.server import ServedModel, ServerLostError
from surogate_bench_evaluator.tokens import Boundaries

_log = logging.getLogger(__name__)


class _LastMessage(logging.Filter):
    """Stores the server's last message, and drops log records of errors: they contain the request's headers and key."""

    text = ""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING:
            self.text = record.getMessage()[:500]
        return record.levelno < logging.ERROR


_last_message = _LastMessage()
logging.getLogger("lm_eval").setLevel(logging.WARNING)
logging.getLogger("lm_eval.models.api_models").addFilter(_last_message)

_REFUSALS = frozenset({400, 401, 403, 413, 422})
_FINISHED = frozenset({"stop", CUT_OFF, "repetition"})
_ASYNCHRONOUS = 2
"""Minimum number of concurrent requests that lm-eval sends asynchronously."""


def prompt_text(prompt: str | JsonChatStr) -> str:
    """Return the text of a request: a prompt, or messages as JSON."""
    return str(prompt.prompt) if isinstance(prompt, JsonChatStr) else prompt


class ResumableCompletions(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval is not typed
    """``local-completions`` that sends only the prompts that have no answer yet, until a deadline.

    Prompts go to vLLM as text, which it tokenizes with the base model's tokenizer. lm-eval needs no tokenizer
    of its own then, which saves importing torch and transformers; a prompt that is too long is refused by vLLM, where
    lm-eval would cut it.

    All requests take lm-eval's asynchronous path, even one at a time: the other path uses the proxy of the environment
    (``requests``), sends credentials from ``~/.netrc``, and has no deadline.
    """

    path = VLLM_COMPLETIONS_PATH

    def __init__(
        self,
        model: ServedModel,
        evaluation: EvaluationSpec,
        answers: Answers,
        *,
        deadline: float,
        api_key: str | None,
        boundaries: Boundaries,
    ) -> None:
        super().__init__(
            model=model.name,
            base_url=f"{model.vllm_url}{self.path}",
            tokenizer_backend="none",
            tokenized_requests=False,
            num_concurrent=max(_ASYNCHRONOUS, evaluation.num_concurrent),
            max_retries=evaluation.max_retries,
            max_length=model.max_model_len,
            max_gen_toks=evaluation.max_gen_toks,
            timeout=max(1, int(deadline - time.monotonic())),
            header=authorization(api_key) or None,
        )
        self._answers = answers
        self._deadline = deadline
        self._boundaries = boundaries
        self._in_flight = evaluation.num_concurrent
        self._tokens: dict[str, list[int]] = {}
        self.set_cache_hook(answers)

    def generate_until(self, instances: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answer all requests; called once by lm-eval."""
        prompts = [prompt_text(instance.args[0]) for instance in instances]
        self._answers.expect(prompts)
        pending = [each for each, prompt in zip(instances, prompts, strict=True) if prompt not in self._answers]
        if pending:
            super().generate_until(pending, disable_tqdm=disable_tqdm)
        return [self._answers.text(prompt) for prompt in prompts]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Choice]:
        """Return the log-likelihood of each continuation; called once by lm-eval.

        Prompts are sent as tokens, which lm-eval counts to find where the continuation begins. vLLM tokenizes them.

        Raises:
            PermanentError: a question has no prompt, or is too long: lm-eval would cut it.
        """
        keys = [(str(request.args[0]), str(request.args[1])) for request in requests]
        if not all(context.strip() for context, _ in keys):
            raise PermanentError("a question of the task has no prompt, for which vLLM gives no log-likelihood")
        self._answers.expect(keys)
        pending = [each for each, key in zip(requests, keys, strict=True) if key not in self._answers]
        if pending:
            self._tokens = self._tokenized(pending)
            self._require_room()
            self.tokenizer = self  # lm-eval requires one, and asks tok_encode alone
            self.tokenized_requests = True
            super().loglikelihood(pending, disable_tqdm=disable_tqdm)
        return [self._answers.choice(key) for key in keys]

    def _require_room(self) -> None:
        longest = max(map(len, self._tokens.values()))
        if longest > self.max_length:  # of lm-eval: one less than the server's, for the token that vLLM generates
            raise PermanentError(
                f"a question is too long ({longest} tokens): "
                + _must_fit("question, examples, a choice and one token that is generated", self.max_length + 1)
            )

    def tok_encode(self, string: str, *_: object, **__: object) -> list[str] | list[int]:
        """Return the tokens that vLLM gave for a text; without a tokenizer, the text, as lm-eval does."""
        return [string] if self.tokenizer is None else self._tokens[string]

    def _tokenized(self, requests: list[Any]) -> dict[str, list[int]]:
        """Return the tokens of every prompt, with and without its continuation."""
        texts = dict.fromkeys(text for request in requests for text in _texts_of(*request.args))
        return asyncio.run(self._tokenize(list(texts)))

    async def _tokenize(self, texts: list[str]) -> dict[str, list[int]]:
        url = f"{self.base_url.removesuffix(self.path)}/tokenize"
        connector = aiohttp.TCPConnector(limit=self._in_flight)

        async def tokens_of(session: aiohttp.ClientSession, text: str) -> tuple[str, list[int]]:
            body = {"model": self.model, "prompt": text, "add_special_tokens": self._boundaries.special_tokens}
            async with session.post(url, json=body, headers=self.header) as response:
                response.raise_for_status()
                return text, list((await response.json())["tokens"])

        async with asyncio.timeout(self._deadline - time.monotonic()):
            async with aiohttp.ClientSession(connector=connector) as session:
                return dict(await asyncio.gather(*(tokens_of(session, text) for text in texts)))

    def _create_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - lm-eval's own
        """Build the payload of a request; the prompt begins, and its answer ends, as in training."""
        payload: dict[str, Any] = super()._create_payload(*args, **kwargs)
        return {**payload, **self._boundaries.payload()}

    @staticmethod
    def parse_generations(outputs: Any, **kwargs: Any) -> list[str]:  # noqa: ANN401 - lm-eval's own
        """Return every choice as an :class:`Answer`, which is empty if the model ended at once.

        Raises:
            aiohttp.ClientPayloadError: vLLM answered with status 200, but did not finish (an aborted request has no
                text, or a part of it).
        """
        answers = outputs if isinstance(outputs, list) else [outputs]
        marked = [
            {"choices": [{**choice, "text": _finished(choice, answer)} for choice in answer["choices"]]}
            for answer in answers
        ]
        generations: list[str] = LocalCompletionsAPI.parse_generations(marked, **kwargs)
        return generations

    @property
    def api_key(self) -> str:
        """Empty: lm-eval would send ``OPENAI_API_KEY``; the server's own key is in the header."""
        return ""

    async def get_batched_requests(self, *args: Any, **kwargs: Any) -> list[Any]:  # noqa: ANN401 - lm-eval's own
        """Send the pending requests, within the deadline."""
        # lm-eval raises the first failure and leaves the others to the event loop, which would log each of them.
        asyncio.get_running_loop().set_exception_handler(_ignore_further_failures)
        before: int = self._concurrent  # type: ignore[has-type]  # of lm-eval
        self._concurrent = self._in_flight
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                batches: list[Any] = await super().get_batched_requests(*args, **kwargs)
                return batches
        finally:
            self._concurrent = before


class ResumableChat(ResumableCompletions, LocalChatCompletion):  # type: ignore[misc]  # lm-eval is not typed
    """``local-chat-completions`` in the same way: vLLM renders messages by the tokenizer's chat template.

    Special tokens are then those of the template alone.

    Args:
        template_arguments: Further arguments of the template.
        arguments: Arguments of :class:`ResumableCompletions`.
    """

    path = "/v1/chat/completions"

    def __init__(self, *args: Any, template_arguments: Mapping[str, Any], **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self._template_arguments = template_arguments

    def _create_payload(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - lm-eval's own
        payload = super()._create_payload(*args, **kwargs) | {"add_special_tokens": False}
        return payload | ({"chat_template_kwargs": self._template_arguments} if self._template_arguments else {})

    @staticmethod
    def parse_generations(outputs: Any, **kwargs: Any) -> list[str]:  # noqa: ANN401 - lm-eval's own
        """Return the content of every message; see :meth:`ResumableCompletions.parse_generations`."""
        answers = outputs if isinstance(outputs, list) else [outputs]
        texts = [
            answer
            | {"choices": [{**choice, "text": choice["message"]["content"] or ""} for choice in answer["choices"]]}
            for answer in answers
        ]
        return ResumableCompletions.parse_generations(texts, **kwargs)


def _texts_of(context: str, continuation: str) -> tuple[str, str]:
    """Return prompt and prompt with continuation as lm-eval tokenizes them: trailing spaces belong to the latter."""
    return context.rstrip(), context + continuation


def _finished(choice: Mapping[str, Any], response: Mapping[str, Any]) -> Answer:
    reason = choice.get("finish_reason")
    if reason not in _FINISHED or not isinstance(choice["text"], str):
        raise aiohttp.ClientPayloadError(f"an answer did not finish (finish_reason {reason!r})")
    tokens = (response.get("usage") or {}).get("completion_tokens")  # of all choices together
    known = isinstance(tokens, int) and len(response["choices"]) == 1
    return Answer(choice["text"], finish_reason=reason, tokens=tokens if known else None)


def _ignore_further_failures(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), (aiohttp.ClientError, RuntimeError, TimeoutError)):
        _log.error("event loop: %s", context.get("message"), extra={"error": type(context.get("exception")).__name__})


def _must_fit(parts: str, max_model_len: int) -> str:
    return f"{parts} together must fit into serving.max_model_len ({max_model_len} tokens)"


HTTP_ERRORS = (aiohttp.ClientError, TimeoutError)
"""Errors that lm-eval raises when its retries are exhausted."""


def explain_http_error(error: Exception, model: ServedModel) -> ServerLostError | PermanentError:
    """Convert an HTTP error: transient after the loss of a server or adapter (404), permanent after a refusal."""
    status = getattr(error, "status", None)
    what = f"HTTP {status}" if status else str(error) or type(error).__name__
    if status in _REFUSALS:
        return PermanentError(
            f"vLLM refuses a question ({what}). If it is too long: "
            f"{_must_fit('question, examples and evaluation.max_gen_toks', model.max_model_len)}. {_last_message.text}"
        )
    return ServerLostError(f"vLLM at {model.vllm_url} failed while answering: {what}")
