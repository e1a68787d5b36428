"""Stand-in for an S3 server: objects in memory, and refusals on demand, served to the real client library."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

CREDENTIALS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
_DATE = "Wed, 01 Jan 2025 00:00:00 GMT"


@dataclass
class Bucket:
    """One bucket and how its server behaves."""

    objects: dict[str, bytes] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    """Status and code that every request is answered with; the words are ``Words of CODE.``."""
    silent: Event = field(default_factory=Event)
    """While set, requests that arrive wait for :attr:`released` before they are answered."""
    released: Event = field(default_factory=Event)
    slow_keys: set[str] = field(default_factory=set)
    """Requests for these wait until a request for another key was answered."""
    other_answered: Event = field(default_factory=Event)
    requests: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead a client here; the endpoint is filled in by :func:`serving`."""
        return {"AWS_ENDPOINT_URL": self.address, **CREDENTIALS}


@contextmanager
def serving(bucket: Bucket) -> Iterator[Bucket]:
    """Serve a bucket, whatever its name, from a thread on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    server.daemon_threads = True
    server.block_on_close = False
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    bucket.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield bucket
    finally:
        bucket.released.set()
        bucket.other_answered.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the output of tests clean."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that the base class calls

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.bucket.requests.append(f"{self.command} {self.path}")
        if self.bucket.silent.is_set():
            self.bucket.released.wait()
        if self.bucket.refusal is not None:
            self._refuse(*self.bucket.refusal)
            return
        key = unquote(urlsplit(self.path).path).split("/", 2)[-1]
        if key in self.bucket.slow_keys:
            self.bucket.other_answered.wait()
        if self.command == "PUT":
            self._put(key, body)
        elif self.command == "POST":  # the only one is a request to delete keys
            keys = [each.partition("</Key>")[0] for each in body.decode().split("<Key>")[1:]]
            for each in keys:
                self.bucket.objects.pop(each, None)
            deleted = "".join(f"<Deleted><Key>{each}</Key></Deleted>" for each in keys)
            self._send(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        elif "list-type" in self.path:
            self._send(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        elif key in self.bucket.objects:
            self._send(200, self.bucket.objects[key])
        else:
            self._refuse(404, "NoSuchKey")

    def _put(self, key: str, body: bytes) -> None:
        if self.headers.get("If-None-Match") == "*" and key in self.bucket.objects:
            self._refuse(412, "PreconditionFailed")
            return
        self.bucket.objects[key] = body
        self._send(200, b"")

    def _refuse(self, status: int, code: str) -> None:
        words = f"<Message>Words of {code}.</Message>"
        self._send(
            status, f"<?xml version='1.0'?>\n<Error><Code>{code}</Code>{words}</Error>".encode() if code else b""
        )

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in {"ETag": '"1"', "Last-Modified": _DATE, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()
        self.bucket.other_answered.set()
