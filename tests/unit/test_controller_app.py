"""The controller put together, against an API server in memory."""

import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from surogate_bench.errors import ConfigError
from surogate_bench_orchestrator.adapters.kubernetes.settings import load_settings
from surogate_bench_orchestrator.controller import app
from surogate_bench_orchestrator.controller.status import condition

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from fake_kubernetes import FakeKubernetes

SWEEPS = "/apis/bench.surogate.ai/v1alpha1/namespaces/lab/recipesweeps"
JOBS = "/apis/batch/v1/namespaces/lab/jobs"
EVENTS = "/api/v1/namespaces/lab/events"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/lab/leases/surogate-bench-controller"
SPEC: dict[str, Any] = {
    "model": {"builtin": "tiny-qwen3-en"},
    "data": {"builtin": "word-problems-ro", "train_size": 8, "test_size": 8},
    "training": {"max_steps": 2},
    "recipes": ["bf16", "fp8"],
}


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
            with urllib.request.urlopen(f"http://127.0.0.1:{self.controller.http.port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait(self, true: Callable[[], object]) -> None:
        with self.api.changed:
            assert self.api.changed.wait_for(true, 60)

    def status(self, name: str = "small") -> dict[str, Any]:
        found: dict[str, Any] = self.api.objects[f"{SWEEPS}/{name}"].get("status", {})
        return found

    def stop(self) -> None:
        if self.controller is not None:
            self.controller.stop()
            self.thread.join(60)
            assert not self.thread.is_alive()


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(store: str = "") -> Site:
        site = Site(tmp_path, store=store or str(tmp_path / "store"))
        monkeypatch.setenv("KUBECONFIG", str(site.api.kubeconfig(tmp_path)))
        made.append(site)
        return site

    yield make
    for site in made:
        site.stop()
        site.api.close()


def test_a_sweep_is_taken_up_by_the_leader_and_its_first_task_submitted(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.wait(lambda: (site.api.objects.get(LEASE) or {"spec": {}})["spec"].get("holderIdentity"))
    site.api.put(f"{SWEEPS}/small", {"spec": SPEC}, "ADDED")
    site.wait(lambda: site.api.below(JOBS))
    (job,) = site.api.below(JOBS)
    assert job["metadata"]["ownerReferences"][0]["name"] == "small"
    site.wait(lambda: site.status().get("phase"))
    assert condition(site.status(), "Admitted")["status"] == "True"
    assert {event["reason"] for event in site.api.below(EVENTS)} == {"Admitted"}
    assert site.get("/readyz") == (200, b"ok\n")
    assert site.get("/healthz") == (200, b"ok\n")
    assert b"surogate_bench_leader 1.0" in site.get("/metrics")[1]
    assert site.get("/reports/small.tar") == (404, b"the sweep has no report yet\n")
    assert site.get("/reports/other.tar") == (404, b"there is no such sweep\n")


def test_a_sweep_that_is_there_at_the_start_is_looked_at_and_a_broken_one_has_no_report(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    site.api.put(f"{SWEEPS}/small", {"spec": SPEC | {"recipes": ["bf17"]}}, "ADDED")
    site.start()
    site.wait(lambda: site.status().get("phase") == "Rejected")
    assert site.get("/reports/small.tar")[0] == 404
    assert site.api.below(JOBS) == []


def test_it_gives_its_lease_back_when_it_stops(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.start()
    site.wait(lambda: (site.api.objects.get(LEASE) or {"spec": {}})["spec"].get("holderIdentity"))
    site.stop()
    assert not site.api.objects[LEASE]["spec"].get("holderIdentity")


def test_a_replica_that_does_not_lead_does_nothing_but_answer(make_site: Callable[..., Site]) -> None:
    site = make_site()
    spec = {
        "holderIdentity": "other", "leaseDurationSeconds": 3600, "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    site.api.put(LEASE, {"spec": spec}, "ADDED")
    site.api.put(f"{SWEEPS}/small", {"spec": SPEC}, "ADDED")
    site.start()
    while site.get("/readyz")[0] != 200:
        threading.Event().wait(0.1)
    assert site.status() == {}
    assert b"surogate_bench_leader 0.0" in site.get("/metrics")[1]


def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "controller.yaml"
    config.write_text("namespace: lab\n")
    with pytest.raises(ConfigError, match=r"config\.instance"):
        app.run_controller(config, port=0)
