"""The model server's control API, as the evaluator uses it.

::

    GET    /readyz            200 once vLLM serves every desired adapter
    GET    /status            {"vllm_url", "model", "max_model_len", "versions", ...}
    PUT    /adapters/{run}    {"prefix"} -> {"model"}; 422 {"reason", "message"} when refused, 503 while not ready
    DELETE /adapters/{run}
    POST   /probe             200 if models in one batch answer as they do alone; 422 if vLLM mixes them up
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx

from surogate_bench.contract import ADAPTERS_PATH, PROBE_PATH, READY_PATH, STATUS_PATH
from surogate_bench.control_api import LoadedAdapter, LoadRequest, ServerStatus
from surogate_bench.errors import PermanentError, TransientError
from surogate_bench.layout import BASE_RUN

_log = logging.getLogger(__name__)

_POLL_S = 0.5
_QUICK_S = 10.0


class ServerLostError(TransientError):
    """The model server stopped responding during an evaluation; it may become available again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """How a run is served: model name, base URL of vLLM, longest prompt and answer together (tokens)."""

    name: str
    vllm_url: str
    max_model_len: int
    under: str | None
    """Recipe that the base is served under; None for the base as published."""
    merged: bool
    """Whether an adapter is merged into the base."""
    versions: Mapping[str, str]
    """Versions of the packages that serve it, which need not be installed here."""
    serving_version: int | None
    """SERVING_VERSION of the server; None where the base is served as published, without a merged adapter."""


class ModelServer:
    """Client of one model server; use as a context manager.

    Args:
        url: URL of the control API.
        under: Recipe that the base must be served under; None for the base as published.
        merged: Run whose adapter must be merged into the base; None for the base alone.
        start_timeout_s: Seconds that the server may take to become ready, and then to load an adapter.
        transport: Transport of the HTTP client; the network if None.
    """

    def __init__(
        self,
        url: str,
        *,
        under: str | None,
        merged: str | None = None,
        start_timeout_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url
        self._under = under
        self._merged = merged
        self._start_timeout_s = start_timeout_s
        # The server is on the same network: a proxy named in the environment must not be used.
        self._client = httpx.Client(base_url=url, timeout=_QUICK_S, transport=transport, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @contextmanager
    def serving(self, run: str, prefix: str) -> Iterator[ServedModel]:
        """Serve the adapter under ``prefix`` for the duration of a with block.

        For run ``base``, and where an adapter is merged into it, that is the server's base model.

        Raises:
            TransientError: the server was not ready in time, starts vLLM again, or serves the base in another way than
                is requested.
            PermanentError: it refuses the adapter, or vLLM mixes up the models of one batch.
        """
        self._until_done("GET", READY_PATH)
        if run == BASE_RUN or self._merged is not None:
            self._until_done("POST", PROBE_PATH, unknown_before=True)
            yield self._served(None)
            return
        try:
            body = LoadRequest(prefix=prefix)
            answer = self._until_done("PUT", f"{ADAPTERS_PATH}/{run}", body.model_dump(mode="json"))
            loaded = LoadedAdapter.model_validate(answer)
            self._until_done("POST", PROBE_PATH, unknown_before=True)
            yield self._served(loaded.model)
        finally:
            self._unload(run)

    def _served(self, model: str | None) -> ServedModel:
        status = ServerStatus.model_validate(self._until_done("GET", STATUS_PATH))
        self._require_way_of_serving(status)
        if status.max_model_len is None:
            raise TransientError(f"the model server at {self._url} is restarting vLLM")
        is_plain = self._under is None and self._merged is None
        return ServedModel(
            name=model or status.model,
            vllm_url=status.vllm_url.rstrip("/"),
            max_model_len=status.max_model_len,
            under=self._under,
            merged=self._merged is not None,
            versions=status.versions,
            serving_version=None if is_plain else status.serving_version,
        )

    def _require_way_of_serving(self, status: ServerStatus) -> None:
        """Check how the base is served: after a restart another server may listen at the same address."""
        way = _way(status.under, status.merged)
        expected = _way(self._under, self._merged)
        if way != expected:
            raise TransientError(
                f"the model server at {self._url} serves the base {way}, and this evaluation is of the base {expected}"
            )

    def _until_done(
        self, method: str, path: str, body: dict[str, str] | None = None, *, unknown_before: bool = False
    ) -> dict[str, Any]:
        """Repeat a request until it succeeds; return the JSON object of the answer, empty if there is none.

        ``unknown_before``: earlier versions have no such path. During an upgrade, a server of the previous version may
        still run; it answers 404, and serves as before.
        """
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            left = deadline - time.monotonic()
            cause: Exception | None = None
            try:
                response = self._client.request(method, path, json=body, timeout=max(left, _POLL_S))
            except httpx.TransportError as error:
                problem, cause = str(error) or type(error).__name__, error
            else:
                if response.is_success:
                    return _object_of(response)
                if unknown_before and response.status_code == httpx.codes.NOT_FOUND:
                    _log.warning("the model server is of an earlier version, which has no %s %s", method, path)
                    return {}
                if response.is_client_error:
                    raise PermanentError(f"the model server refuses {method} {path}: {_message_of(response)}")
                problem = f"HTTP {response.status_code} {_message_of(response)}"
            if time.monotonic() + _POLL_S >= deadline:
                raise TransientError(
                    f"the model server at {self._url} did not complete {method} {path} within "
                    f"{self._start_timeout_s:g} s; last: {problem}"
                ) from cause
            time.sleep(_POLL_S)

    def _unload(self, run: str) -> None:
        """Unload an adapter; a failure is logged only, because the evaluation is complete."""
        try:
            response = self._client.delete(f"{ADAPTERS_PATH}/{run}")
        except httpx.TransportError as error:
            _log.warning("the adapter could not be unloaded: %s", error, extra={"run": run})
            return
        if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
            _log.warning("the adapter could not be unloaded: %s", _message_of(response), extra={"run": run})


def _way(under: str | None, merged: str | None) -> str:
    way = f"under {under}" if under else "as published"
    return f"with the adapter of {merged} merged into it, {way}" if merged else way


def _object_of(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _message_of(response: httpx.Response) -> str:
    document = _object_of(response)
    if "message" in document:
        return f"{document.get('reason', 'Refused')}: {document['message']}"
    return response.text[:500]
