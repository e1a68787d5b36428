"""The command line on a cluster, against a cluster in memory."""

import io
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_world import MakeWorld
from rich.console import Console

from surogate_bench.errors import BenchError, ConfigError, PermanentError, TransientError
from surogate_bench.specs import RecipeSweep, load_sweep
from surogate_bench_orchestrator.cli.cluster import commands
from surogate_bench_orchestrator.cli.cluster.follow import AWAY_S, TAKE_UP_S
from surogate_bench_orchestrator.cli.cluster.ports import Pod, Resource
from surogate_bench_orchestrator.cli.cluster.reports import unpack
from surogate_bench_orchestrator.cli.cluster.standing import read_standing
from surogate_bench_orchestrator.controller.http_server import write_tar
from surogate_bench_orchestrator.report import build_report
from surogate_bench_orchestrator.resource.model import resource_of

SPEC: dict[str, Any] = {
    "name": "small",
    "model": {"builtin": "tiny-qwen3-en"},
    "data": {"builtin": "word-problems-ro", "train_size": 8, "test_size": 8},
    "training": {"max_steps": 2},
    "recipes": ["bf16"],
}
CONTROLLER = Pod(name="surogate-bench-0", ready=True)
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
    condition = {"type": "Admitted", "status": "False", "reason": "Invalid", "message": "spec.recipes: odd. Fix it."}
    return {"observedGeneration": 1, "phase": phase, "conditions": [condition]}


class FakeCluster:
    """A namespace whose controller writes one status after another, one each time it is looked at."""

    namespace = "lab"

    def __init__(self, *statuses: dict[str, Any] | BenchError | None) -> None:
        self.statuses = list(statuses)
        self.stored: dict[str, Resource] = {}
        self.applied: list[Resource] = []
        self.controller_pods = [CONTROLLER]
        self.reports: dict[str, bytes | BenchError] = {}
        self.run_pods: dict[str, list[Pod]] = {}
        self.logs: dict[str, str | BenchError] = {}

    def check(self) -> None:
        pass

    def get(self, name: str) -> Resource | None:
        resource = self.stored.get(name)
        if resource is not None and self.statuses:
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            if isinstance(status, BenchError):
                raise status
            if status is None:
                return None
            resource["status"] = status
        return resource

    def apply(self, manifest: Resource) -> Resource:
        self.applied.append(manifest)
        metadata = manifest["metadata"] | {"uid": "u-1", "generation": 1}
        self.stored[metadata["name"]] = manifest | {"metadata": metadata}
        return dict(self.stored[metadata["name"]])

    def controllers(self) -> list[Pod]:
        return self.controller_pods

    def pods(self, sweep: str, **labels: str) -> list[Pod]:
        return self.run_pods.get("/".join([sweep, *labels.values()]), [])

    def log(self, pod: Pod, *, tail: int) -> str:
        text = self.logs[pod.name]
        if isinstance(text, BenchError):
            raise text
        return "".join(text.splitlines(keepends=True)[-tail:])

    def download(self, pod: Pod, path: str) -> bytes:
        del pod
        answer = self.reports.get(path, PermanentError(f"GET {path}: 404"))
        if isinstance(answer, BenchError):
            raise answer
        return answer


class FakeClock:
    def __init__(self, each: Callable[[], None] = lambda: None) -> None:
        self.time = 0.0
        self._each = each

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self._each()


class Desk:
    """A folder with a sweep file, and the consoles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "sweep.yaml"
        self.file.write_text(yaml.safe_dump(SPEC))
        self.consoles = commands.Consoles(
            output=Console(file=io.StringIO(), width=140), messages=Console(file=io.StringIO(), width=140)
        )

    @property
    def sweep(self) -> RecipeSweep:
        return load_sweep(self.file)

    @property
    def out(self) -> str:
        assert isinstance(self.consoles.output.file, io.StringIO)
        return self.consoles.output.file.getvalue()

    @property
    def err(self) -> str:
        assert isinstance(self.consoles.messages.file, io.StringIO)
        return self.consoles.messages.file.getvalue()

    def run(self, cluster: FakeCluster, clock: FakeClock | None = None, *, as_json: bool = False) -> int:
        return commands.run_on_cluster(
            cluster, self.sweep, folder=self.folder / "report", as_json=as_json, consoles=self.consoles,
            clock=clock or FakeClock(),
        )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.fixture
def report(report_world: MakeWorld) -> bytes:
    """A report as a controller serves it."""
    world = report_world(**SPEC)
    world.publish_everything()
    summary = build_report(world.store, world.sweep, {}).summary
    return tar({"summary.json": summary.model_dump_json().encode(), "charts/loss.png": b"PNG"})


def tar(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return raw.getvalue()


def finishing(report: bytes, *statuses: dict[str, Any] | BenchError | None) -> FakeCluster:
    cluster = FakeCluster(*statuses)
    cluster.reports["/reports/small.tar"] = report
    return cluster


def test_a_sweep_is_submitted_followed_and_its_report_fetched(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, {}, RUNNING, COMPLETE)
    cluster.apply(resource_of(desk.sweep, "lab"))
    cluster.stored.clear()
    cluster.applied.clear()
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
    assert desk.run(FakeCluster(refused("Rejected"))) == 2
    assert "spec.recipes: odd. Fix it." in desk.err


def test_what_keeps_a_sweep_from_being_admitted_may_pass_but_not_take_for_ever(desk: Desk, report: bytes) -> None:
    assert desk.run(finishing(report, refused("Pending"), RUNNING, COMPLETE)) == 0
    clock = FakeClock()
    assert desk.run(FakeCluster(refused("Pending")), clock) == 2
    assert TAKE_UP_S < clock.time < 2 * TAKE_UP_S


def test_a_sweep_that_no_controller_takes_up_is_given_up(desk: Desk) -> None:
    with pytest.raises(PermanentError, match="no controller has taken up sweep small"):
        desk.run(FakeCluster({}))


def test_a_cluster_without_a_controller_is_bad_input(desk: Desk) -> None:
    cluster = FakeCluster()
    cluster.controller_pods = []
    with pytest.raises(ConfigError, match="helm install"):
        desk.run(cluster)
    assert cluster.applied == []


def test_a_sweep_that_is_there_already_is_followed_and_not_applied_again(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, COMPLETE)
    cluster.apply(resource_of(desk.sweep, "lab"))
    cluster.applied.clear()
    assert desk.run(cluster) == 0
    assert cluster.applied == []


def test_another_sweep_of_the_same_name_is_not_touched(desk: Desk) -> None:
    cluster = FakeCluster(RUNNING)
    cluster.apply(resource_of(desk.sweep, "lab"))
    desk.file.write_text(yaml.safe_dump(SPEC | {"seeds": [1]}))
    with pytest.raises(ConfigError, match="kubectl delete recipesweep small"):
        desk.run(cluster)
    assert len(cluster.applied) == 1


def test_a_sweep_that_is_being_deleted_is_waited_for_by_the_user(desk: Desk) -> None:
    cluster = FakeCluster(RUNNING)
    cluster.apply(resource_of(desk.sweep, "lab"))
    cluster.stored["small"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(ConfigError, match="is being deleted"):
        desk.run(cluster)


def test_a_cluster_that_is_away_for_a_while_is_borne_with(desk: Desk, report: bytes) -> None:
    away = TransientError("connection refused")
    assert desk.run(finishing(report, RUNNING, away, away, away, COMPLETE)) == 0
    clock = FakeClock()
    with pytest.raises(TransientError, match="has been away for 600 s: connection refused"):
        desk.run(FakeCluster(RUNNING, away), clock)
    assert AWAY_S < clock.time < 2 * AWAY_S


def test_a_sweep_that_is_deleted_meanwhile_ends_the_following(desk: Desk) -> None:
    with pytest.raises(PermanentError, match="was deleted"):
        desk.run(FakeCluster(RUNNING, None))


def test_an_interrupted_follower_says_that_the_sweep_goes_on(desk: Desk) -> None:
    clock = FakeClock(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert desk.run(FakeCluster(RUNNING), clock) == 130
    assert "goes on in the cluster" in desk.err
    assert "kubectl delete recipesweep small --namespace lab" in desk.err


def test_a_report_that_is_missing_is_an_error_after_the_states(desk: Desk) -> None:
    with pytest.raises(PermanentError, match="404"):
        desk.run(FakeCluster(COMPLETE))
    assert "2 of 2 runs ended" in desk.out


def test_seeds_have_no_effect_on_a_sweep_given_by_name_and_are_refused(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="--seed: has no effect on a sweep given by name"):
        commands.show_status(FakeCluster(COMPLETE), Path("small"), as_json=False, consoles=desk.consoles, seeds=[0, 1])


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
    cluster = FakeCluster(RUNNING)
    cluster.apply(resource_of(desk.sweep, "lab"))
    for sweep in (desk.file, Path("small")):
        commands.show_status(cluster, sweep, as_json=False, consoles=desk.consoles)
    assert desk.out.count("small: 1 of 2 runs ended (Running)") == 2
    with pytest.raises(ConfigError, match="no such sweep in namespace lab"):
        commands.show_status(cluster, Path("other"), as_json=False, consoles=desk.consoles)


def test_status_as_json_has_every_row(desk: Desk) -> None:
    cluster = FakeCluster(RUNNING)
    cluster.apply(resource_of(desk.sweep, "lab"))
    commands.show_status(cluster, Path("small"), as_json=True, consoles=desk.consoles)
    document = json.loads(desk.out)
    assert document["runs"][1]["trouble"] == "Killed: by SIGKILL"
    assert document["services"] == [{"name": "prepare", "state": "Done", "attempt": 0, "step": 0, "total": 0}]


def test_report_goes_into_a_folder_of_its_own_by_default(desk: Desk, report: bytes) -> None:
    cluster = finishing(report, RUNNING)
    cluster.apply(resource_of(desk.sweep, "lab"))
    commands.get_report(cluster, Path("small"), folder=None, consoles=desk.consoles)
    folder = desk.folder / "results" / f"small-{desk.sweep.spec_hash}" / "report"
    assert (folder / "summary.json").is_file()


@pytest.fixture
def logged(desk: Desk) -> FakeCluster:
    cluster = FakeCluster(RUNNING)
    cluster.apply(resource_of(desk.sweep, "lab"))
    first, second = Pod(name="t-1", ready=False, stage="train"), Pod(name="t-2", ready=True, stage="train")
    cluster.run_pods = {
        "small/train/bf16-s0": [first, second],
        "small/eval/bf16-s0": [Pod(name="e-1", ready=False, stage="eval")],
        "small/serve": [Pod(name="m-1", ready=True, stage="serve")],
    }
    cluster.logs = {"t-1": "one\ntwo\n", "t-2": "three\n", "e-1": PermanentError("waiting to start"), "m-1": "vllm\n"}
    return cluster


def test_logs_are_shown_pod_after_pod(desk: Desk, logged: FakeCluster) -> None:
    commands.show_logs(logged, Path("small"), "bf16-s0", stage=None, tail=1, consoles=desk.consoles)
    assert desk.out.splitlines() == [
        "==> t-1 (train) <==", "two", "==> t-2 (train) <==", "three", "==> e-1 (eval) <==",
        "(no log: waiting to start)",
    ]  # fmt: skip


def test_logs_of_one_stage_and_of_the_model_server(desk: Desk, logged: FakeCluster) -> None:
    commands.show_logs(logged, Path("small"), "model-server", stage=None, tail=9, consoles=desk.consoles)
    commands.show_logs(logged, Path("small"), "bf16-s0", stage="eval", tail=9, consoles=desk.consoles)
    assert desk.out.splitlines()[::2] == ["==> m-1 (serve) <==", "==> e-1 (eval) <=="]


@pytest.mark.parametrize(
    ("run", "stage", "words"), [("fp9-s0", None, "no such run"), ("base", "train", "never trained")]
)
def test_logs_of_what_there_is_not(desk: Desk, logged: FakeCluster, run: str, stage: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        commands.show_logs(logged, Path("small"), run, stage=stage, tail=9, consoles=desk.consoles)


def test_logs_of_a_run_without_pods(desk: Desk, logged: FakeCluster) -> None:
    with pytest.raises(PermanentError, match="no pod of prepare"):
        commands.show_logs(logged, Path("small"), "prepare", stage=None, tail=9, consoles=desk.consoles)


def test_render_writes_the_manifest(desk: Desk) -> None:
    commands.render_resource(desk.sweep, namespace=None, as_json=False, output=desk.consoles.output)
    assert yaml.safe_load(desk.out) == resource_of(desk.sweep)


def test_a_refusal_of_an_earlier_generation_is_no_refusal_of_this_one() -> None:
    resource = {"metadata": {"name": "small", "uid": "u", "generation": 2}, "status": refused("Rejected")}
    standing = read_standing(resource)
    assert not standing.rejected
    assert standing.refusal == ""


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_report_never_writes_outside_of_its_folder(name: str) -> None:
    with pytest.raises(PermanentError, match="outside"):
        unpack(tar({name: b"x"}))


def test_a_damaged_report_is_an_error() -> None:
    with pytest.raises(PermanentError, match="no tar archive"):
        unpack(b"not a tar")


def test_a_report_is_read_as_the_controller_packs_it(report_world: Any) -> None:
    store = report_world().store
    store.put("sweeps/small/report/summary.json", b"{}")
    store.put("sweeps/small/report/charts/loss.png", b"PNG")
    raw = io.BytesIO()
    write_tar(store, "sweeps/small/report", raw)
    assert unpack(raw.getvalue()) == {"summary.json": b"{}", "charts/loss.png": b"PNG"}
