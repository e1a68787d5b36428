"""A small HTTP server in a stage's process: ``GET /metrics`` for Prometheus, ``GET /progress`` for the controller."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from surogate_bench.contract import EVERY_ADDRESS, METRICS_PATH, METRICS_PORT_VARIABLE, PROGRESS_PATH
from surogate_bench.errors import ConfigError
from surogate_bench.processes.progress import read_progress

_log = logging.getLogger(__name__)
_CLIENT_TIMEOUT_S = 5.0
_POLL_S = 0.1
_HIGHEST_PORT = 65535


@contextmanager
def serving_metrics(port: str, work_dir: Path, expositions: Sequence[Callable[[], bytes]]) -> Iterator[None]:
    """Serve metrics and progress in a daemon thread for the duration of a with block.

    Args:
        port: Setting of the variable SUROGATE_BENCH_METRICS_PORT.
        work_dir: Folder of the progress file.
        expositions: Return metrics in Prometheus' text format; each metric may be in one of them only.

    Raises:
        ConfigError: the port is invalid or in use.
    """
    server = _listen(port)
    server.work_dir = work_dir
    server.expositions = (_process_metrics(), *expositions)
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(setting: str) -> "_Server":
    def unusable(why: str) -> ConfigError:
        return ConfigError(
            why, field=METRICS_PORT_VARIABLE, value=setting, remedy="Set it to a free port, or unset it."
        )

    if not (setting.isdecimal() and 0 < int(setting) <= _HIGHEST_PORT):
        raise unusable("is not a port number")
    try:
        return _Server((EVERY_ADDRESS, int(setting)), _Handler)
    except OSError as error:
        raise unusable(f"metrics cannot be served on this port: {error.strerror}") from error


def _process_metrics() -> Callable[[], bytes]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return lambda: generate_latest(registry)


class _Server(ThreadingMixIn, TCPServer):
    """Not ``http.server.HTTPServer``, which resolves this machine's name and waits where there is no DNS."""

    allow_reuse_address = True
    daemon_threads = True
    work_dir: Path
    expositions: Sequence[Callable[[], bytes]]

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._one_at_a_time = threading.Lock()
        super().__init__(address, handler)

    def metrics(self) -> bytes:
        with self._one_at_a_time:
            return b"".join(exposition() for exposition in self.expositions)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's parameters
        _log.warning("a request for metrics or progress failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_TIMEOUT_S
    server_version = "surogate-bench"
    sys_version = ""
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == METRICS_PATH:
            self._answer(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, self.server.metrics())
        elif path == PROGRESS_PATH and (progress := read_progress(self.server.work_dir)):
            self._answer(HTTPStatus.OK, "application/json", progress.model_dump_json(exclude_none=True).encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there is nothing here\n")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: every scrape would add a line."""

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
