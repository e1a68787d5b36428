"""The metrics port: the model server's own metrics, and vLLM's.

Both are read over HTTP: from the control API, which must not be scraped itself because every client of it can load and
unload adapters, and from vLLM. A source that does not respond is omitted.
"""

import logging
import re

import httpx

from surogate_bench.contract import METRICS_PATH
from surogate_bench.stages.requests import ServeRequest
from surogate_bench_model_server.addresses import url_of

_log = logging.getLogger(__name__)
_TIMEOUT_S = 3.0
_OF_A_PROCESS = re.compile(rb"(# (HELP|TYPE) )?(process|python)_")
"""These are already exported for the supervisor, and a series may appear only once."""


class ServerExposition:
    """Metrics in Prometheus' text format."""

    def __init__(self, request: ServeRequest) -> None:
        self._sources = [f"{url_of(request.host, port)}{METRICS_PATH}" for port in (request.port, request.vllm_port)]

    def __call__(self) -> bytes:
        """Read both."""
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as http:
            return b"".join(_without_process(_ask(http, source)) for source in self._sources)


def _ask(http: httpx.Client, source: str) -> bytes:
    try:
        answer = http.get(source)
    except httpx.HTTPError as error:
        _log.debug("no metrics from %s: %s", source, error)
        return b""
    return answer.content if answer.is_success else b""


def _without_process(text: bytes) -> bytes:
    return b"".join(line + b"\n" for line in text.splitlines() if not _OF_A_PROCESS.match(line))
