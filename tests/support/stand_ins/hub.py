"""Stand-in for the Hugging Face hub: folders served by the hub's HTTP API, to the real client libraries.

Uses the standard library only, so that it can also run as a script in a pod.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)(?P<path>/.*)?)?"
)
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repository:
    """A model or a data set; its only branch is ``main``."""

    folder: Path

    @property
    def files(self) -> dict[str, bytes]:
        """Contents by path."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    @property
    def commit(self) -> str:
        """Forty hexadecimal digits that stand for the contents."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in self.files.items():
            digest.update(name.encode() + b"\0" + data)
        return digest.hexdigest()


@dataclass
class Hub:
    """What is served.

    Args:
        models: Repositories by name, ``owner/name``.
        datasets: The same, of data sets.
        token: What clients have to show; None lets everybody read.
    """

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    token: str | None = None
    requests: list[str] = field(default_factory=list)
    """Methods and paths, in order."""
    verbose: bool = False
    """Write them to standard error, too."""

    def server(self, host: str, port: int) -> ThreadingHTTPServer:
        """Bind; the caller serves and closes."""
        return ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"hub": self}))


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve from a thread on a free port of this machine; gives the address for ``HF_ENDPOINT``."""
    server = hub.server("127.0.0.1", 0)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the output of tests clean."""
        if self.hub.verbose:
            super().log_message(format, *args)

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._refuse(HTTPStatus.UNAUTHORIZED, "GatedRepo")
        elif found := _API.fullmatch(path):
            self._describe(found, body)
        elif found := _FILE.fullmatch(path):
            self._send_file(found)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")

    def _repository(self, found: re.Match[str]) -> Repository | None:
        """The repository asked for; refused and None if there is none, or no such revision."""
        repositories = self.hub.datasets if (found["kind"] or "").startswith("datasets") else self.hub.models
        repository = repositories.get(found["repo"])
        if repository is None:
            self._refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")
            return None
        if found["revision"] not in (None, "main", repository.commit):
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
            return None
        return repository

    def _describe(self, found: re.Match[str], body: str) -> None:
        repository = self._repository(found)
        if repository is None:
            return
        if found["what"] in {None, "revision"}:
            self._send_json(
                {
                    "_id": repository.commit[:24], "id": found["repo"], "sha": repository.commit, "private": False,
                    "tags": [], "downloads": 0, "siblings": [{"rfilename": name} for name in repository.files],
                }
            )  # fmt: skip
            return
        under = (found["path"] or "").strip("/")
        requested = parse_qs(body).get("paths", []) if found["what"] == "paths-info" else None
        if body.startswith("{"):
            requested = json.loads(body)["paths"]
        self._send_json(
            [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in repository.files.items()
                if (name in requested if requested is not None else name.startswith(under))
            ]
        )

    def _send_file(self, found: re.Match[str]) -> None:
        repository = self._repository(found)
        if repository is None:
            return
        data = repository.files.get(found["path"])
        if data is None:
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", commit=repository.commit)
            return
        self._send(HTTPStatus.OK, data, {"X-Repo-Commit": repository.commit, "ETag": f'"{_etag(data)}"'})

    def _send_json(self, value: object) -> None:
        self._send(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: HTTPStatus, code: str, *, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code} | ({"X-Repo-Commit": commit} if commit else {})
        self._send(status, b"", headers)

    def _send(self, status: HTTPStatus, data: bytes, headers: dict[str, str]) -> None:
        first, last = 0, len(data)
        if status is HTTPStatus.OK and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            first, last = int(asked[1]), int(asked[2]) + 1 if asked[2] else last
            status = HTTPStatus.PARTIAL_CONTENT
            headers = headers | {"Content-Range": f"bytes {first}-{last - 1}/{len(data)}"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(last - first))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[first:last])


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _repositories(assignments: list[str]) -> dict[str, Repository]:
    pairs = (each.split("=", 1) for each in assignments)
    return {name: Repository(Path(folder)) for name, folder in pairs}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", action="append", default=[], metavar="OWNER/NAME=FOLDER")
    parser.add_argument("--dataset", action="append", default=[], metavar="OWNER/NAME=FOLDER")
    parser.add_argument("--token")
    given = parser.parse_args()
    hub = Hub(_repositories(given.model), _repositories(given.dataset), given.token, verbose=True)
    hub.server("", given.port).serve_forever()


if __name__ == "__main__":
    main()
