"""What the controller answers over HTTP: health, metrics, and the reports of its sweeps.

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
from surogate_bench.store import ObjectStore

_log = logging.getLogger(__name__)

_REPORT = re.compile(r"/reports/([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)\.tar")
_IN_MEMORY = 4 * 1024**2
_REQUEST_TIMEOUT_S = 30.0
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Where the answers come from."""

    registry: CollectorRegistry
    unhealthy: Callable[[], str]
    """Why the process should be restarted; empty if it is well."""
    unready: Callable[[], str]
    """What it still waits for; empty if it is ready."""
    store: Callable[[], ObjectStore | None]
    report_prefix: Callable[[str], str | None]
    """Where the report of a sweep lies in the store; None for a sweep that does not exist."""


class HttpServer:
    """Serves in threads of its own.

    Args:
        port: 0 takes a free one.
        answers: Where the answers come from.
    """

    def __init__(self, port: int, answers: Answers) -> None:
        handler = type("_BoundHandler", (_Handler,), {"answers": answers})
        self._server = ThreadingHTTPServer(("", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and free the port."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[Answers]
    timeout = _REQUEST_TIMEOUT_S
    server_version, sys_version = "surogate-bench", ""

    def do_GET(self) -> None:
        """Answer."""
        path = urlsplit(self.path).path
        if path == METRICS_PATH:
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            self._send(HTTPStatus.OK, encode(self.answers.registry), kind)
        elif path == HEALTH_PATH:
            self._say_whether_well(self.answers.unhealthy())
        elif path == READY_PATH:
            self._say_whether_well(self.answers.unready())
        elif found := _REPORT.fullmatch(path):
            self._send_report(found.group(1))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"there is no such page\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log requests for those who look for them."""
        _log.debug(format, *args)

    def _say_whether_well(self, trouble: str) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
        self._send(status, f"{trouble or 'ok'}\n".encode())

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
            _log.debug("the client went away before it had everything")


def write_tar(store: ObjectStore, prefix: str, out: IO[bytes]) -> int:
    """Write every object under a prefix as a tar file, with names relative to the prefix; returns how many.

    Nothing counts before ``summary.json`` is there, which is written last.

    Raises:
        BenchError: the store is away or refuses.
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
