"""Client of vLLM's HTTP API, as far as serving adapters needs it."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import httpx

from surogate_bench.contract import VLLM_COMPLETIONS_PATH, authorization
from surogate_bench.errors import PermanentError, TransientError

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_HEALTH_TIMEOUT_S = 10.0
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
_PROBE_TOKENS = 12
_PROBE_STARTS = range(10, 106, 12)
_PROBE_CANDIDATES = 5
_GENERATED_TOKENS = 14
"""With the prompt's one token, this is still below the smallest ``serving.max_model_len``."""
_MESSAGE_CHARACTERS = 1000

Logprobs = tuple[dict[str, float], ...]
"""For each prompt, the log-probability (nats) of each of the likeliest next tokens."""


@dataclass(frozen=True, slots=True)
class VllmClient:
    """A client of one vLLM server. Every method raises TransientError when vLLM remains unavailable after retries."""

    _http: httpx.AsyncClient

    @classmethod
    def open(cls, url: str, api_key: str | None) -> Self:
        """Make a client of the server at ``url`` (no slash at the end)."""
        return cls(httpx.AsyncClient(base_url=url, headers=authorization(api_key), timeout=_TIMEOUT, trust_env=False))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def is_healthy(self) -> bool:
        """Return whether vLLM reports that it is healthy."""
        try:
            answer = await self._http.get("/health", timeout=_HEALTH_TIMEOUT_S)
        except httpx.HTTPError:
            return False
        return answer.status_code == HTTPStatus.OK

    async def models(self) -> dict[str, dict[str, Any]]:
        """List what is served: name → model card (the base's has ``max_model_len``, in tokens)."""
        answer = await self._request("GET", "/v1/models")
        return {card["id"]: card for card in answer.json()["data"]}

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter; one that is listed already is left as it is.

        Raises:
            PermanentError: vLLM is healthy but refuses it (status 400, 404 or 500).
        """
        if name in await self.models():
            return
        refusals = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR)
        body = {"lora_name": name, "lora_path": str(folder)}
        answer = await self._request("POST", "/v1/load_lora_adapter", body, also=refusals)
        if answer.is_success or name in await self.models():  # a retried request finds its first attempt's work done
            return
        if not await self.is_healthy():
            raise TransientError(f"vLLM failed while it loaded {name}: {_message(answer)}")
        raise PermanentError(f"vLLM refuses to load {name}: {_message(answer)}")

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter; one that is not loaded is not an error."""
        await self._request("POST", "/v1/unload_lora_adapter", {"lora_name": name}, also=(HTTPStatus.NOT_FOUND,))

    async def probe(self, model: str) -> Logprobs:
        """Request the likeliest first tokens after fixed prompts.

        Prompts are runs of token ids, not text, so that they do not depend on the tokenizer, and shorter than the
        blocks of vLLM's prefix cache, so that they are computed each time. Log-probabilities of the prompts themselves
        are not requested: vLLM's own LoRA code for CPUs fails when a batch holds them together with other requests.

        Args:
            model: Served name.

        Returns:
            For each prompt, the log-probability (nats) of its likeliest tokens.
        """
        body = {
            "model": model,
            "prompt": [list(range(first, first + _PROBE_TOKENS)) for first in _PROBE_STARTS],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": _PROBE_CANDIDATES,
            "return_tokens_as_token_ids": True,
        }
        answer = await self._request("POST", VLLM_COMPLETIONS_PATH, body)
        choices = sorted(answer.json()["choices"], key=lambda choice: int(choice["index"]))
        return tuple(choice["logprobs"]["top_logprobs"][0] for choice in choices)

    async def prefill(self, model: str, prompt: str, *, special_tokens: bool) -> None:
        """Compute the prompt of one request.

        Args:
            model: Served name.
            prompt: The text; its beginning is cut off where the model cannot take it whole.
            special_tokens: Whether the tokenizer adds its special tokens.
        """
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "add_special_tokens": special_tokens,
            "truncate_prompt_tokens": -1,
        }
        await self._request("POST", VLLM_COMPLETIONS_PATH, body)

    async def generate(self, model: str) -> None:
        """Generate a few tokens, which keep the model in the batches of the next steps."""
        body = {
            "model": model,
            "prompt": [_PROBE_STARTS[0]],
            "max_tokens": _GENERATED_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        await self._request("POST", VLLM_COMPLETIONS_PATH, body)

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, also: Collection[HTTPStatus] = ()
    ) -> httpx.Response:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                answer = await self._http.request(method, path, json=body)
            except httpx.HTTPError as error:
                failure = TransientError(f"vLLM does not answer {method} {path}: {type(error).__name__} {error}")
                failure.__cause__ = error
                continue
            if answer.is_success or answer.status_code in also:
                return answer
            if answer.is_client_error:
                raise PermanentError(f"vLLM refuses {method} {path}: {_message(answer)}")
            failure = TransientError(f"vLLM fails at {method} {path}: {_message(answer)}")
        raise failure


def _message(answer: httpx.Response) -> str:
    try:
        document = answer.json()
        text = str(document["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = answer.text
    return f"{text[:_MESSAGE_CHARACTERS]} (status {answer.status_code})"
