"""One replica of the controller, against an API server in memory."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from waiting import PATIENCE_S, until
from worlds.controller import small_spec

from surogate_bench.errors import ConfigError
from surogate_bench_orchestrator.controller import app, election
from surogate_bench_orchestrator.resource.status import ConditionType, SweepStatus
from surogate_bench_orchestrator.runtimes.kubernetes.settings import load_settings

SWEEPS = "/apis/bench.surogate.ai/v1alpha1/namespaces/lab/recipesweeps"
JOBS = "/apis/batch/v1/namespaces/lab/jobs"
EVENTS = "/api/v1/namespaces/lab/events"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/lab/leases/surogate-bench-controller"
Object = dict[str, Any]
_SUBRESOURCES = {"status"}


class FakeKubernetes:
    """An API server in memory, without validation: objects by path, and a history of changes for watches."""

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
        """Store an object and notify watches."""
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
        """Delete an object and notify watches."""
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

    def changes_since(self, collection: str, since: int) -> tuple[int, list[Object]] | None:
        """Wait for changes of a collection; None when the server is closed."""
        with self.changed:
            self.changed.wait_for(lambda: self._closed or self.version > since, 1.0)
            if self._closed:
                return None
            new = self._history[since:]
            events = [
                {"type": kind, "object": item} for kind, path, item in new if path.rpartition("/")[0] == collection
            ]
            return self.version, events

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
            while (changes := self.world.changes_since(collection, since)) is not None:
                since, events = changes
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


class Site:
    """A controller in a thread, and its API server."""

    def __init__(self, folder: Path, *, store: str) -> None:
        self.api = FakeKubernetes()
        self.config = folder / "controller.yaml"
        workload = {"image": "example/none:1"}
        settings = {
            "namespace": "lab", "instance": "lab", "store": {"url": store}, "trainer": workload, "prepare": workload,
            "model_server": workload, "evaluator": workload,
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(settings))
        self.controller: app.Controller | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.controller = app.Controller(load_settings(self.config), port=0)
        self.thread.start()

    def _run(self) -> None:
        assert self.controller is not None
        self.controller.run()

    def get(self, path: str) -> tuple[int, bytes]:
        assert self.controller is not None
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.controller.http.port}{path}", timeout=PATIENCE_S
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait(self, true: Callable[[], object]) -> None:
        with self.api.changed:
            assert self.api.changed.wait_for(true, PATIENCE_S)

    def status(self, name: str = "small") -> SweepStatus:
        return SweepStatus.of(self.api.objects[f"{SWEEPS}/{name}"])

    def stop(self) -> None:
        if self.controller is not None:
            self.controller.stop()
            self.thread.join(PATIENCE_S)
            assert not self.thread.is_alive()


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []
    # A leader that is slow to renew its lease stays the leader; one that loses it ends this process.
    monkeypatch.setattr(election, "_LEASE_S", 2 * int(PATIENCE_S))
    monkeypatch.setattr(election, "_RENEW_S", int(PATIENCE_S))

    def make(store: str = "") -> Site:
        site = Site(tmp_path, store=store or str(tmp_path / "store"))
        monkeypatch.setenv("KUBECONFIG", str(site.api.kubeconfig(tmp_path)))
        made.append(site)
        return site

    yield make
    for site in made:
        site.stop()
        site.api.close()


def test_the_leader_admits_a_sweep_and_submits_its_first_task(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.wait(lambda: (site.api.objects.get(LEASE) or {"spec": {}})["spec"].get("holderIdentity"))
    site.api.put(f"{SWEEPS}/small", {"spec": small_spec()}, "ADDED")
    site.wait(lambda: site.api.below(JOBS))
    (job,) = site.api.below(JOBS)
    assert job["metadata"]["ownerReferences"][0]["name"] == "small"
    site.wait(lambda: site.status().phase)
    assert site.status().is_true(ConditionType.ADMITTED)
    assert {event["reason"] for event in site.api.below(EVENTS)} == {"Admitted"}
    assert site.get("/readyz") == (200, b"ok\n")
    assert site.get("/healthz") == (200, b"ok\n")
    assert b"surogate_bench_leader 1.0" in site.get("/metrics")[1]
    assert site.get("/reports/small.tar") == (404, b"the sweep has no report yet\n")
    assert site.get("/reports/other.tar") == (404, b"there is no such sweep\n")


def test_an_existing_sweep_is_reconciled_at_the_start_and_an_invalid_one_has_no_report(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    site.api.put(f"{SWEEPS}/small", {"spec": small_spec(recipes=["bf17"])}, "ADDED")
    site.start()
    site.wait(lambda: site.status().phase == "Rejected")
    assert site.get("/reports/small.tar")[0] == 404
    assert site.api.below(JOBS) == []


def test_it_releases_its_lease_when_it_stops(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.wait(lambda: (site.api.objects.get(LEASE) or {"spec": {}})["spec"].get("holderIdentity"))
    site.stop()
    assert not site.api.objects[LEASE]["spec"].get("holderIdentity")


def test_a_replica_that_is_not_the_leader_only_serves_http(make_site: Callable[..., Site]) -> None:
    site = make_site()
    spec = {
        "holderIdentity": "other", "leaseDurationSeconds": 3600, "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    site.api.put(LEASE, {"spec": spec}, "ADDED")
    site.api.put(f"{SWEEPS}/small", {"spec": small_spec()}, "ADDED")
    site.start()
    until(lambda: site.get("/readyz")[0] == 200, "it is ready")
    assert site.status() == SweepStatus()
    assert b"surogate_bench_leader 0.0" in site.get("/metrics")[1]


def test_an_invalid_configuration_is_refused_with_the_field(tmp_path: Path) -> None:
    config = tmp_path / "controller.yaml"
    config.write_text("namespace: lab\n")
    with pytest.raises(ConfigError, match=r"config\.instance"):
        app.run_controller(config, port=0)
