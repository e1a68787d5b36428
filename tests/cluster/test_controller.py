"""The controller against a real API server. Pods run nothing: the test stands in for their node."""

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from real_cluster.lab import SPEC, Lab
from real_cluster.release import Until
from real_cluster.tools import PATIENCE_S

from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_orchestrator.resource.status import ConditionType
from surogate_bench_orchestrator.runtimes.kubernetes.api import Api

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("recipesweeps")]


@pytest.fixture
def lab(api: Api, namespace: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(api, namespace, tmp_path)
    with made.node:
        yield made
        for replica in made.replicas:
            if replica.process.poll() is None:
                replica.end(signal.SIGKILL)


def test_a_sweep_runs_to_its_end_and_goes_with_its_resource(lab: Lab, until: Until) -> None:
    replica = lab.start()
    lab.add()
    until(lab.is_complete, "the sweep is complete", 180)
    status = lab.status()
    assert (status.phase, status.progress, status.best) == ("Complete", "3/3", "bf16, fp8 0.625 (1 seed)")
    assert {row.name: row.state for row in status.runs} == {
        "base": "Succeeded", "bf16-s0": "Succeeded", "fp8-s0": "Succeeded",
    }  # fmt: skip
    assert lab.events() == ["Admitted", "RunSucceeded", "RunSucceeded", "RunSucceeded", "SweepComplete"]
    assert len(lab.node.results) == 7
    assert replica.get("/readyz") == (200, b"ok\n")
    metrics = replica.get("/metrics")[1].decode()
    assert 'surogate_bench_accuracy{recipe="fp8",seed="0",sweep="small"} 0.625' in metrics
    code, body = replica.get("/reports/small.tar")
    assert code == 200
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert {"summary.json", "report.html", "summary.md"} <= set(archive.getnames())
    assert all("ttlSecondsAfterFinished" in job["spec"] for job in lab.api.list(lab.jobs))
    lab.api.delete(f"{lab.path}/small")
    until(lambda: not lab.owned(), "everything of the sweep is gone", 120)
    until(lambda: b'sweep="small"' not in replica.get("/metrics")[1], "its metrics are gone")


def test_a_failed_run_has_its_reason(lab: Lab, until: Until) -> None:
    lab.node.failing["fp8-s0-train"] = '{"reason": "ConfigError", "message": "data.train: is empty"}'
    lab.start()
    lab.add()
    until(lambda: lab.status().is_true(ConditionType.FAILED), "the sweep has failed", 180)
    row = lab.row("fp8-s0")
    assert (row.state, row.reason, row.message) == ("Failed", "ConfigError", "data.train: is empty")
    assert lab.events() == ["Admitted", "RunFailed", "RunSucceeded", "RunSucceeded", "SweepFailed"]
    assert len(lab.node.pods_of("fp8-s0-train")) == 1


def test_another_replica_continues_when_the_leader_is_killed_and_nothing_is_repeated(lab: Lab, until: Until) -> None:
    lab.node.holding = {"train"}
    first = lab.start()
    until(lambda: first.leads, "the first replica leads")
    second = lab.start()
    lab.add()
    until(lambda: len(lab.node.pods_of("-train-")) == 2, "both trainers run")
    until(lambda: second.get("/readyz") == (200, b"ok\n"), "the second replica is ready")
    assert not second.leads
    first.end(signal.SIGKILL)
    lab.node.holding = set()
    until(lab.is_complete, "the sweep is complete", 180)
    assert second.leads
    assert [len(lab.node.pods_of(f"-{stage}-")) for stage in ("prepare", "train", "eval")] == [1, 2, 3]
    assert lab.events() == ["Admitted", "RunSucceeded", "RunSucceeded", "RunSucceeded", "SweepComplete"]


def test_a_replica_that_is_requested_to_stop_hands_over(lab: Lab, until: Until) -> None:
    first = lab.start()
    until(lambda: first.leads, "the first replica leads")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{lab.namespace}/leases/surogate-bench-controller"
    assert first.end() == 0
    assert not (lab.api.get(lease) or {})["spec"].get("holderIdentity")
    second = lab.start()
    until(lambda: second.leads, "the second replica leads")


def test_a_leader_that_loses_its_lease_stops_at_once(lab: Lab, until: Until) -> None:
    replica = lab.start()
    until(lambda: replica.leads, "it leads")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{lab.namespace}/leases/surogate-bench-controller"
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lab.api.patch(lease, {"spec": {"holderIdentity": "another", "leaseDurationSeconds": 60, "renewTime": renewed}})
    assert replica.process.wait(PATIENCE_S) == 75


def test_a_suspended_sweep_stops_and_continues(lab: Lab, until: Until) -> None:
    lab.node.holding = {"train"}
    lab.start()
    lab.add()
    until(lambda: len(lab.node.pods_of("-train-")) == 2, "both trainers run")
    lab.api.patch(f"{lab.path}/small", {"spec": {"suspend": True}})
    until(lambda: lab.status().phase == "Suspended", "it is suspended")
    until(lambda: not [name for name in lab.owned() if "-train-" in name], "the trainers are gone")
    lab.node.holding = set()
    lab.api.patch(f"{lab.path}/small", {"spec": {"suspend": False}})
    until(lab.is_complete, "the sweep is complete", 180)
    assert {"Suspended", "Resumed"} < set(lab.events())
    assert len(lab.node.pods_of("-prepare-")) == 1


def test_a_sweep_that_cannot_run_is_rejected_with_the_field_and_the_remedy(lab: Lab, until: Until) -> None:
    lab.start()
    lab.add(evaluation={"task": "no_such_task"})
    until(lambda: lab.status().phase == "Rejected", "it is rejected")
    admitted = lab.status().condition(ConditionType.ADMITTED)
    assert admitted is not None
    assert "spec.evaluation.task" in admitted.message
    assert "Choose one of" in admitted.message
    assert lab.events() == ["Invalid"]
    assert lab.owned() == []


def test_wrong_credentials_of_the_store_are_a_condition_of_every_sweep(
    lab: Lab, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setitem(os.environ, name, value)
    lab.write_config("s3://nowhere/results")
    replica = lab.start()
    lab.add()
    until(lambda: lab.status().conditions, "conditions are set", 180)
    admitted = lab.status().condition(ConditionType.ADMITTED)
    assert admitted is not None
    assert (admitted.status, admitted.reason) == ("False", "StoreNotUsable")
    assert "s3://nowhere/results" in admitted.message
    assert replica.get("/readyz")[0] == 200
    assert replica.get("/reports/small.tar")[0] == 503


def test_the_sweep_is_what_the_specs_say(lab: Lab) -> None:
    lab.add()
    item = lab.api.get(f"{lab.path}/small") or {}
    spec = {name: value for name, value in item["spec"].items() if name not in {"suspend", "reuse", "scheduling"}}
    assert parse_sweep({"name": "small", **spec}) == parse_sweep({"name": "small", **SPEC})
