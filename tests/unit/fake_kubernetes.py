"""An API server in memory: lists, watches, creates, applies and deletes whatever it is given. No validation."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
_SUBRESOURCES = {"status"}


class FakeKubernetes:
    """Objects by path, and a history of changes for watches."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.calls: list[tuple[str, str]] = []
        self.changed = threading.Condition()
        self._history: list[tuple[str, str, Object]] = []
        self._closed = False
        handler = type("_Bound", (_Handler,), {"world": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig that names this server."""
        cluster = {"server": f"http://127.0.0.1:{self._server.server_address[1]}"}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }  # fmt: skip
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def put(self, path: str, item: Object, event: str = "MODIFIED") -> Object:
        """Store an object and tell watches."""
        with self.changed:
            metadata = item.setdefault("metadata", {})
            metadata |= {"name": path.rpartition("/")[2], "resourceVersion": str(len(self._history) + 1)}
            metadata.setdefault("uid", f"uid-{len(self._history)}")
            metadata.setdefault("generation", 1)
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            metadata.setdefault("namespace", "lab")
            self.objects[path] = item
            self._history.append((event, path, json.loads(json.dumps(item))))
            self.changed.notify_all()
        return item

    def remove(self, path: str) -> None:
        """Delete an object and tell watches."""
        with self.changed:
            item = self.objects.pop(path)
            self._history.append(("DELETED", path, item))
            self.changed.notify_all()

    def below(self, collection: str) -> list[Object]:
        """Objects of a collection."""
        with self.changed:
            return [item for path, item in self.objects.items() if path.rpartition("/")[0] == collection]

    @property
    def version(self) -> int:
        return len(self._history)

    def news(self, collection: str, since: int) -> tuple[int, list[Object]] | None:
        """Wait for changes of a collection; None when it is over."""
        with self.changed:
            self.changed.wait_for(lambda: self._closed or self.version > since, 1.0)
            if self._closed:
                return None
            new = self._history[since:]
            told = [{"type": kind, "object": item} for kind, path, item in new if path.rpartition("/")[0] == collection]
            return self.version, told

    def close(self) -> None:
        """End every watch and stop."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: ClassVar[FakeKubernetes]

    def _path(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}

    def do_GET(self) -> None:
        path, query = self._path()
        if query.get("watch") == "true":
            self._watch(path, int(query.get("resourceVersion") or 0))
        elif path in self.world.objects:
            self._answer(200, self.world.objects[path])
        elif path.rpartition("/")[2].endswith("s"):
            listed = {"items": self.world.below(path), "metadata": {"resourceVersion": str(self.world.version)}}
            self._answer(200, listed)
        else:
            self._missing()

    def do_POST(self) -> None:
        collection, _ = self._path()
        item = self._body()
        path = f"{collection}/{item['metadata']['name']}"
        if path in self.world.objects:
            self._answer(409, {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "exists"})
        else:
            self._answer(201, self.world.put(path, item, "ADDED"))

    def do_PUT(self) -> None:
        path, _ = self._path()
        self._answer(200, self.world.put(path, self._body()))

    def do_PATCH(self) -> None:
        path, _ = self._path()
        item, body = path, self._body()
        if path.rpartition("/")[2] in _SUBRESOURCES:
            item = path.rpartition("/")[0]
        self.world.calls.append(("PATCH", path))
        if item not in self.world.objects:
            self._missing()
            return
        merged = {**self.world.objects[item], **{name: part for name, part in body.items() if name != "metadata"}}
        self._answer(200, self.world.put(item, merged))

    def do_DELETE(self) -> None:
        path, _ = self._path()
        self._body()
        if path in self.world.objects:
            self.world.remove(path)
            self._answer(200, {})
        else:
            self._missing()

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def _watch(self, collection: str, since: int) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while (news := self.world.news(collection, since)) is not None:
                since, events = news
                for event in events:
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True

    def _body(self) -> Object:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found: Object = json.loads(raw) if raw else {}
        return found

    def _missing(self) -> None:
        self._answer(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"})

    def _answer(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
