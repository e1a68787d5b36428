"""The controller's HTTP server: health, metrics, and the reports of its sweeps.

``GET /healthz``, ``GET /readyz``, ``GET /metrics``, ``GET /reports/<sweep>.tar`` (a tar file of the report folder).
"""

import logging
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import IO, ClassVar
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from surogate_bench.contract import HEALTH_PATH, METRICS_PATH, READY_PATH, SUMMARY_FILE
from surogate_bench.errors import BenchError
from surogate_bench.store.object_store import ObjectStore

_log = logging.getLogger(__name__)

_REPORT = re.compile(r"/reports/([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)\.tar")
_IN_MEMORY = 4 * 1024**2
_REQUEST_TIMEOUT_S = 30.0
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Sources of the responses."""

    registry: CollectorRegistry
    unhealthy: Callable[[], str]
    """Returns why the process should be restarted; empty if it is healthy."""
    unready: Callable[[], str]
    """Returns what the process waits for; empty if it is ready."""
    store: Callable[[], ObjectStore | None]
    report_prefix: Callable[[str], str | None]
    """Returns the prefix of a sweep's report in the store; None for a sweep that does not exist."""


class HttpServer:
    """Serves in separate threads.

    Args:
        port: 0 takes a free one.
        answers: Sources of the responses.
    """

    def __init__(self, port: int, answers: Answers) -> None:
        handler = type("_BoundHandler", (_Handler,), {"answers": answers})
        self._server = ThreadingHTTPServer(("", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, and close the port."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[Answers]
    timeout = _REQUEST_TIMEOUT_S
    server_version, sys_version = "surogate-bench", ""

    def do_GET(self) -> None:
        """Respond to a GET request."""
        path = urlsplit(self.path).path
        if path == METRICS_PATH:
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            self._send(HTTPStatus.OK, encode(self.answers.registry), kind)
        elif path == HEALTH_PATH:
            self._send_health(self.answers.unhealthy())
        elif path == READY_PATH:
            self._send_health(self.answers.unready())
        elif found := _REPORT.fullmatch(path):
            self._send_report(found.group(1))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such page\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log requests at level debug."""
        _log.debug(format, *args)

    def _send_health(self, reason: str) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
        self._send(status, f"{reason or 'ok'}\n".encode())

    def _send_report(self, sweep: str) -> None:
        store, prefix = self.answers.store(), self.answers.report_prefix(sweep)
        if prefix is None:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such sweep\n")
            return
        if store is None:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"the object store cannot be used\n")
            return
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as archive:
            try:
                files = write_tar(store, prefix, archive)
            except BenchError as error:
                self._send(HTTPStatus.BAD_GATEWAY, f"{error}\n".encode())
                return
            if not files:
                self._send(HTTPStatus.NOT_FOUND, b"the sweep has no report yet\n")
                return
            self._send_file(archive, "application/x-tar")

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self._send_file(BytesIO(body), kind, status, len(body))

    def _send_file(
        self, body: IO[bytes], kind: str, status: HTTPStatus = HTTPStatus.OK, size: int | None = None
    ) -> None:
        length = body.tell() if size is None else size
        body.seek(0)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            while chunk := body.read(_CHUNK):
                self.wfile.write(chunk)
        except ConnectionError:
            _log.debug("the client closed the connection before the end of the response")


def write_tar(store: ObjectStore, prefix: str, out: IO[bytes]) -> int:
    """Write every object under a prefix as a tar file, with names relative to the prefix; return their number.

    A folder without ``summary.json``, which is written last, is treated as empty.

    Raises:
        BenchError: the store is unreachable or refuses.
    """
    infos = store.list(f"{prefix}/")
    if f"{prefix}/{SUMMARY_FILE}" not in {info.key for info in infos}:
        return 0
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info in infos:
            data = store.get(info.key) or b""
            member = tarfile.TarInfo(info.key.removeprefix(f"{prefix}/"))
            member.size, member.mtime, member.mode = len(data), int(info.last_modified.timestamp()), 0o644
            archive.addfile(member, BytesIO(data))
    return len(infos)
