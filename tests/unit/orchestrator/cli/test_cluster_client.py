"""The command line on a cluster, against a cluster in memory."""

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import write_sweep
from stand_ins.clock import FakeClock
from stand_ins.cluster import CONTROLLER, Desk, MemoryCluster, cluster_with_sweep, tar
from sweeps import small_document
from worlds.report import MakeWorld

from surogate_bench.errors import BenchError, ConfigError, PermanentError, TransientError
from surogate_bench_orchestrator.cli.targets.cluster.cluster_api import Pod
from surogate_bench_orchestrator.cli.targets.cluster.follow import ADMISSION_TIMEOUT_S, UNAVAILABLE_TIMEOUT_S
from surogate_bench_orchestrator.cli.targets.cluster.report import unpack
from surogate_bench_orchestrator.cli.targets.cluster.sweep import read_resource
from surogate_bench_orchestrator.cli.targets.target import SweepArgument
from surogate_bench_orchestrator.controller.http_server import write_tar
from surogate_bench_orchestrator.report import build_report
from surogate_bench_orchestrator.resource.model import resource_of

RUNNING = {
    "observedGeneration": 1, "phase": "Running", "progress": "1/2",
    "services": [{"name": "prepare", "state": "Done"}],
    "runs": [
        {"name": "base", "state": "Succeeded", "accuracy": 0.008},
        {"name": "bf16-s0", "state": "Training", "attempt": 2, "step": 30, "total": 100, "loss": 1.25,
         "tokensPerSecond": 5123.4, "elapsedSeconds": 12.0, "reason": "Killed", "message": "by SIGKILL"},
    ],
}  # fmt: skip


def ended(state: str, phase: str) -> dict[str, Any]:
    runs = [{"name": "base", "state": "Succeeded"}, {"name": "bf16-s0", "state": state}]
    return {"observedGeneration": 1, "phase": phase, "runs": runs, "resultsURI": "s3://lab/small"}


COMPLETE = ended("Succeeded", "Complete")


def refused(phase: str) -> dict[str, Any]:
    condition = {
        "type": "Admitted", "status": "False", "reason": "Invalid", "message": "spec.recipes: odd. Fix it.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return {"observedGeneration": 1, "phase": phase, "conditions": [condition]}


SMALL = SweepArgument(Path("small"))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweep.yaml")
    return Desk(tmp_path)


@pytest.fixture
def report(report_world: MakeWorld) -> bytes:
    """A report as a controller serves it."""
    world = report_world(**small_document())
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    return tar({"summary.json": summary.model_dump_json().encode(), "charts/loss.png": b"PNG"})


def finishing(report: bytes, *statuses: dict[str, Any] | BenchError | None) -> MemoryCluster:
    cluster = MemoryCluster(*statuses)
    cluster.reports["/reports/small.tar"] = report
    return cluster


def test_a_sweep_is_submitted_followed_and_its_report_fetched(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, {}, RUNNING, COMPLETE)
    assert desk.run(cluster) == 0
    assert cluster.applied == [resource_of(desk.sweep, "lab")]
    assert "bf16-s0: Training  30/100  loss 1.250  5,123 tokens/s  (attempt 2)  Killed: by SIGKILL" in desk.out
    assert "bf16-s0: Succeeded" in desk.out
    assert "Base model" in desk.out
    assert (desk.folder / "report" / "charts" / "loss.png").read_bytes() == b"PNG"
    assert f"Report: {desk.folder / 'report' / 'report.html'}" in desk.out


@pytest.mark.parametrize(("state", "phase"), [("Failed", "Failed"), ("Skipped", "Complete")])
def test_a_run_that_did_not_succeed_makes_the_exit_code_1(desk: Desk, report: bytes, state: str, phase: str) -> None:
    assert desk.run(finishing(report, ended(state, phase))) == 1


def test_json_goes_to_the_output_alone(desk: Desk, report: bytes) -> None:
    assert desk.run(finishing(report, RUNNING, COMPLETE), as_json=True) == 0
    document = json.loads(desk.out)
    assert (document["sweep"], document["namespace"], document["phase"]) == ("small", "lab", "Complete")
    assert [run["state"] for run in document["runs"]] == ["Succeeded", "Succeeded"]
    assert "Training" in desk.err


def test_a_rejected_sweep_is_bad_input_with_its_message(desk: Desk) -> None:
    assert desk.run(MemoryCluster(refused("Rejected"))) == 2
    assert "spec.recipes: odd. Fix it." in desk.err


def test_what_keeps_a_sweep_from_being_admitted_may_pass_but_not_take_for_ever(desk: Desk, report: bytes) -> None:
    assert desk.run(finishing(report, refused("Pending"), RUNNING, COMPLETE)) == 0
    clock = FakeClock()
    assert desk.run(MemoryCluster(refused("Pending")), clock) == 2
    assert ADMISSION_TIMEOUT_S < clock.time < 2 * ADMISSION_TIMEOUT_S


def test_a_sweep_that_no_controller_observes_is_an_error(desk: Desk) -> None:
    with pytest.raises(PermanentError, match="no controller has observed sweep small"):
        desk.run(MemoryCluster({}))


def test_a_cluster_without_a_controller_is_bad_input(desk: Desk) -> None:
    cluster = MemoryCluster()
    cluster.controller_pods = []
    with pytest.raises(ConfigError, match="helm install"):
        desk.run(cluster)
    assert cluster.applied == []


def test_a_sweep_that_is_there_already_is_followed_and_not_applied_again(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, COMPLETE)
    cluster.create(resource_of(desk.sweep, "lab"))
    assert desk.run(cluster) == 0
    assert cluster.applied == []


def test_another_sweep_of_the_same_name_is_not_touched(desk: Desk) -> None:
    cluster = cluster_with_sweep(RUNNING)
    write_sweep(desk.file, seeds=[1])
    with pytest.raises(ConfigError, match="kubectl delete recipesweep small"):
        desk.run(cluster)
    assert cluster.applied == []


def test_a_sweep_that_is_being_deleted_is_waited_for_by_the_user(desk: Desk) -> None:
    cluster = cluster_with_sweep(RUNNING)
    cluster.stored["small"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(ConfigError, match="is being deleted"):
        desk.run(cluster)


def test_a_cluster_that_is_unavailable_for_a_while_is_tried_again(desk: Desk, report: bytes) -> None:
    unavailable = TransientError("connection refused")
    assert desk.run(finishing(report, RUNNING, unavailable, unavailable, unavailable, COMPLETE)) == 0
    clock = FakeClock()
    with pytest.raises(TransientError, match="has been unavailable for 600 s: connection refused"):
        desk.run(MemoryCluster(RUNNING, unavailable), clock)
    assert UNAVAILABLE_TIMEOUT_S < clock.time < 2 * UNAVAILABLE_TIMEOUT_S


def test_a_sweep_that_is_deleted_meanwhile_ends_the_following(desk: Desk) -> None:
    with pytest.raises(PermanentError, match="was deleted"):
        desk.run(MemoryCluster(RUNNING, None))


def test_an_interrupted_command_prints_that_the_sweep_continues(desk: Desk) -> None:
    clock = FakeClock(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert desk.run(MemoryCluster(RUNNING), clock) == 130
    assert "continues in the cluster" in desk.err
    assert "kubectl delete recipesweep small --namespace lab" in desk.err


def test_a_report_that_is_missing_is_an_error_after_the_states(desk: Desk) -> None:
    with pytest.raises(PermanentError, match="404"):
        desk.run(MemoryCluster(COMPLETE))
    assert "2 of 2 runs ended" in desk.out


def test_seeds_have_no_effect_on_a_sweep_given_by_name_and_are_refused(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="--seed: has no effect on a sweep given by name"):
        desk.target(MemoryCluster(COMPLETE)).status(SweepArgument(Path("small"), [0, 1]), as_json=False)


def test_a_report_of_another_version_is_refused_with_the_remedy(desk: Desk) -> None:
    cluster = finishing(tar({"summary.json": b'{"name": "small"}'}), COMPLETE)
    with pytest.raises(PermanentError, match=r"another version of surogate-bench: install the same version"):
        desk.run(cluster)


def test_a_report_comes_from_a_controller_that_is_ready(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, COMPLETE)
    cluster.controller_pods = [Pod(name="starting", ready=False), CONTROLLER]
    assert desk.run(cluster) == 0
    cluster.controller_pods = [Pod(name="starting", ready=False)]
    with pytest.raises(TransientError, match="no controller in namespace lab is ready"):
        desk.run(cluster)


def test_status_takes_a_file_or_a_name(desk: Desk) -> None:
    cluster = cluster_with_sweep(RUNNING)
    for sweep in (desk.file, Path("small")):
        desk.target(cluster).status(SweepArgument(sweep), as_json=False)
    assert desk.out.count("small: 1 of 2 runs ended (Running)") == 2
    with pytest.raises(ConfigError, match="no such sweep in namespace lab"):
        desk.target(cluster).status(SweepArgument(Path("other")), as_json=False)


def test_status_as_json_has_every_row(desk: Desk) -> None:
    cluster = cluster_with_sweep(RUNNING)
    desk.target(cluster).status(SMALL, as_json=True)
    document = json.loads(desk.out)
    assert (document["runs"][1]["reason"], document["runs"][1]["message"]) == ("Killed", "by SIGKILL")
    assert document["services"] == [{"name": "prepare", "state": "Done", "attempt": 0, "step": 0, "total": 0}]


def test_report_goes_into_a_folder_of_its_own_by_default(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, RUNNING)
    cluster.create(resource_of(desk.sweep, "lab"))
    desk.target(cluster).report(SMALL, folder=None)
    folder = desk.folder / "results" / f"small-{desk.sweep.spec_hash}" / "report"
    assert (folder / "summary.json").is_file()


@pytest.fixture
def logged() -> MemoryCluster:
    cluster = cluster_with_sweep(RUNNING)
    first, second = Pod(name="t-1", ready=False, stage="train"), Pod(name="t-2", ready=True, stage="train")
    cluster.run_pods = {
        "small/train/bf16-s0": [first, second],
        "small/eval/bf16-s0": [Pod(name="e-1", ready=False, stage="eval")],
        "small/serve": [Pod(name="m-1", ready=True, stage="serve")],
    }
    cluster.texts = {"t-1": "one\ntwo\n", "t-2": "three\n", "e-1": PermanentError("waiting to start"), "m-1": "vllm\n"}
    return cluster


def test_logs_are_shown_pod_after_pod(desk: Desk, logged: MemoryCluster) -> None:
    desk.target(logged).logs(SMALL, "bf16-s0", stage=None, tail=1)
    assert desk.out.splitlines() == [
        "==> t-1 (train) <==", "two", "==> t-2 (train) <==", "three", "==> e-1 (eval) <==",
        "(no log: waiting to start)",
    ]  # fmt: skip


def test_logs_of_one_stage_and_of_the_model_server(desk: Desk, logged: MemoryCluster) -> None:
    desk.target(logged).logs(SMALL, "model-server", stage=None, tail=9)
    desk.target(logged).logs(SMALL, "bf16-s0", stage="eval", tail=9)
    assert desk.out.splitlines()[::2] == ["==> m-1 (serve) <==", "==> e-1 (eval) <=="]


@pytest.mark.parametrize(
    ("run", "stage", "words"), [("fp9-s0", None, "no such run"), ("base", "train", "never trained")]
)
def test_logs_of_missing_runs_and_stages_are_refused(
    desk: Desk, logged: MemoryCluster, run: str, stage: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        desk.target(logged).logs(SMALL, run, stage=stage, tail=9)


def test_logs_of_a_run_without_pods(desk: Desk, logged: MemoryCluster) -> None:
    with pytest.raises(PermanentError, match="no pod of prepare"):
        desk.target(logged).logs(SMALL, "prepare", stage=None, tail=9)


def test_render_writes_the_manifest(desk: Desk) -> None:
    desk.target(MemoryCluster()).render(SweepArgument(desk.file), as_json=False)
    assert yaml.safe_load(desk.out) == resource_of(desk.sweep)


def test_a_refusal_of_an_earlier_generation_is_no_refusal_of_this_one() -> None:
    resource = {"metadata": {"name": "small", "uid": "u", "generation": 2}, "status": refused("Rejected")}
    sweep = read_resource(resource)
    assert not sweep.rejected
    assert sweep.refusal == ""


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_report_never_writes_outside_of_its_folder(name: str) -> None:
    with pytest.raises(PermanentError, match="outside"):
        unpack(tar({name: b"x"}))


def test_a_damaged_report_is_an_error() -> None:
    with pytest.raises(PermanentError, match="not a tar archive"):
        unpack(b"not a tar")


def test_a_report_is_read_as_the_controller_packs_it(report_world: MakeWorld) -> None:
    store = report_world().store
    store.put("sweeps/small/report/summary.json", b"{}")
    store.put("sweeps/small/report/charts/loss.png", b"PNG")
    raw = io.BytesIO()
    write_tar(store, "sweeps/small/report", raw)
    assert unpack(raw.getvalue()) == {"summary.json": b"{}", "charts/loss.png": b"PNG"}
