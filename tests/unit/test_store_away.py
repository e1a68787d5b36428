"""A remote store that is away for a while."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from surogate_bench.errors import TransientError
from surogate_bench.store import ObjectStore, open_store


@contextmanager
def away(monkeypatch: pytest.MonkeyPatch, requests: int, patience: timedelta) -> Iterator[ObjectStore]:
    """A store that fails so many requests, and then has everything."""
    failed: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if len(failed) < requests:
                failed.append(self.path)
                self.send_error(503)
                return
            self.send_response(200)
            for name, value in {
                "ETag": '"1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Content-Length": "4",
            }.items():  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"data")

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield open_store("s3://bucket", patience=patience)
        server.shutdown()


def test_a_request_is_repeated_while_there_is_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    with away(monkeypatch, 3, timedelta(seconds=60)) as store:
        assert store.get("key") == b"data"


def test_without_patience_the_first_failure_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with away(monkeypatch, 1, timedelta(0)) as store, pytest.raises(TransientError, match="key"):
        store.get("key")
