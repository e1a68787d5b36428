"""Pods are lost while a sweep runs: it goes on, nothing that was finished is repeated, and nothing is left over."""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from real_cluster.release import Release, Small, Until
from real_cluster.tools import PATIENCE_S

from surogate_bench.errors import TransientError
from surogate_bench.layout import SweepLayout
from surogate_bench.results import TrainResult
from surogate_bench.stages.manifest import Manifest
from surogate_bench.stages.publication import read_manifest
from surogate_bench.store.object_store import ObjectStore

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PARTS = "SUROGATE_BENCH_CLUSTER_PART_COMMAND"
ONE, OTHER = "bf16-s0", "qfp8-bf16-s0"
LONG = {"training__max_steps": 300, "data__test_size": 200}
"""Long enough to be hit in the middle of training and of evaluation."""


def has_checkpoint(store: ObjectStore, layout: SweepLayout, run: str) -> bool:
    return bool(store.list(f"{layout.train(run)}/checkpoints"))


def resumed_from(results: dict[str, Manifest], run: str) -> int:
    return results[f"{run}/train"].require_result(TrainResult).resumed_from_step


def succeeds(release: Release, until: Until, name: str, patience_s: float = 400) -> None:
    """The sweep completes, each of its stages that was not hit ran once, and all of it ends and goes."""
    until(lambda: release.finished(name), f"{name} ends", patience_s)
    status = release.status(name)
    assert (status.phase, status.failed) == ("Complete", 0), status
    until(lambda: not release.active(name), f"nothing of {name} runs any more")


def pods_of(release: Release, name: str, stage: str, run: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = release.pods(sweep=name, stage=stage, **({"run": run} if run else {}))
    return found


def test_a_sweep_survives_the_loss_of_a_trainer_the_leader_and_the_model_server(
    release: Release, small: Small, until: Until
) -> None:
    name = "losses"
    release.submit(name, small(**LONG))
    layout = release.layout(name)
    with release.store() as store:
        until(lambda: has_checkpoint(store, layout, ONE), "there is a checkpoint", 300)
        [hit] = pods_of(release, name, "train", ONE)
        release.kill(hit)
        release.kill(release.leader())
        until(lambda: release.state(name, OTHER) == "Evaluating", "it evaluates", 300)
        before = release.results(store, name)
        assert {"prepare", f"{OTHER}/train"} <= before.keys()
        [server] = pods_of(release, name, "serve")
        release.kill(server)
        succeeds(release, until, name)
        after = release.results(store, name)
    assert after | before == after
    assert resumed_from(after, ONE) > 0
    assert resumed_from(after, OTHER) == 0
    assert [len(pods_of(release, name, "prepare")), len(pods_of(release, name, "train", OTHER))] == [1, 1]
    release.remove(name)


@pytest.mark.exhaustive
def test_a_sweep_survives_the_loss_of_all_controllers_while_the_server_starts_and_while_it_evaluates(
    release: Release, small: Small, until: Until
) -> None:
    name = "leaderless"
    release.submit(name, small(data__test_size=200))
    with release.store() as store:
        until(lambda: release.state(name, "model server") == "Starting", "the server starts", 200)
        for pod in release.controllers():
            release.kill(pod)
        until(lambda: release.state(name, OTHER) == "Evaluating", "it evaluates", 200)
        before = release.results(store, name)
        for pod in release.controllers():
            release.kill(pod)
        succeeds(release, until, name)
        after = release.results(store, name)
    assert after | before == after
    for stage, pods in {"prepare": 1, "train": 2, "serve": 0, "eval": 2}.items():
        assert len(pods_of(release, name, stage)) == pods
    release.remove(name)


def test_a_suspended_sweep_goes_on_from_its_checkpoints_and_a_deleted_one_leaves_nothing(
    release: Release, small: Small, until: Until
) -> None:
    name = "paused"
    release.submit(name, small(training__max_steps=300, recipes=["bf16"]))
    layout = release.layout(name)
    with release.store() as store:
        until(lambda: has_checkpoint(store, layout, ONE), "there is a checkpoint", 300)
        release.change(name, suspend=True)
        until(lambda: release.status(name).phase == "Suspended", "it is suspended")
        until(lambda: not release.active(name), "nothing of it runs")
        assert read_manifest(store, layout.train(ONE)) is None
        release.change(name, suspend=False)
        until(lambda: f"{ONE}/train" in release.results(store, name), "it is trained", 200)
        assert resumed_from(release.results(store, name), ONE) > 0
    until(lambda: release.state(name, "model server") in {"Starting", "Running"}, "there is a server")
    release.remove(name)


@contextmanager
def without(part: str) -> Iterator[None]:
    """A part of the control plane is killed, and comes back."""
    command = shlex.split(os.environ[PARTS])
    subprocess.run([*command, "stop", part, "--kill"], check=True, timeout=PATIENCE_S)
    try:
        yield
    finally:
        subprocess.run([*command, "start", part], check=True, timeout=PATIENCE_S)


def answers(release: Release, name: str) -> bool:
    """Whether the API serves RecipeSweeps, which it does some seconds after its own kinds."""
    try:
        return bool(release.status(name).conditions)
    except TransientError:
        return False


@pytest.mark.exhaustive
@pytest.mark.skipif(PARTS not in os.environ, reason=f"{PARTS} is not set")
def test_a_sweep_survives_a_restart_of_the_api_server(release: Release, small: Small, until: Until) -> None:
    name = "no-api"
    release.submit(name, small(training__max_steps=300))
    layout = release.layout(name)
    with release.store() as store:
        until(lambda: has_checkpoint(store, layout, ONE), "there is a checkpoint", 300)
    with without("apiserver"):
        time.sleep(12)  # longer than a leader goes on without renewing its lease
    until(lambda: answers(release, name), "the API answers again")
    succeeds(release, until, name)
    with release.store() as store:
        assert [resumed_from(release.results(store, name), run) for run in (ONE, OTHER)] == [0, 0]
    for stage, pods in {"prepare": 1, "train": 2, "serve": 0, "eval": 2}.items():
        assert len(pods_of(release, name, stage)) == pods
    release.remove(name)


def jobs(release: Release, name: str) -> dict[str, dict[str, Any]]:
    """Jobs of a sweep that have not ended, by stage; it has one run."""
    path = f"/apis/batch/v1/namespaces/{release.namespace}/jobs"
    found = release.api.list(path, labelSelector=f"bench.surogate.ai/sweep={name}")
    return {
        job["metadata"]["labels"]["bench.surogate.ai/stage"]: job
        for job in found
        if not any(each["type"] in {"Complete", "Failed"} for each in job["status"].get("conditions") or ())
    }


@pytest.mark.exhaustive
def test_queued_jobs_start_when_they_are_admitted_and_go_on_after_a_preemption(
    release: Release, small: Small, until: Until
) -> None:
    """Does to Jobs what Kueue does: they start when it lets them, and it may take that back."""
    name = "queued"

    def suspends(job: dict[str, Any], suspended: bool) -> None:
        path = f"/apis/batch/v1/namespaces/{release.namespace}/jobs/{job['metadata']['name']}"
        release.api.patch(path, {"spec": {"suspend": suspended}})

    def admitted(true: Callable[[], object]) -> Callable[[], object]:
        def admits() -> object:
            for job in jobs(release, name).values():
                if job["spec"]["suspend"]:
                    suspends(job, False)
            return true()

        return admits

    spec = small(training__max_steps=300, recipes=["bf16"]) | {"scheduling": {"queue_name": "gpus"}}
    release.submit(name, spec)
    until(lambda: jobs(release, name), "a Job waits")
    [waiting] = jobs(release, name).values()
    assert waiting["spec"]["suspend"] is True
    assert waiting["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    until(
        lambda: any("Kueue" in row.message for row in release.status(name).services),
        "the status says what it waits for",
    )
    assert release.state(name, "prepare") == "Pending"
    assert not release.pods(sweep=name), "nothing runs before it is admitted"

    layout = release.layout(name)
    with release.store() as store:
        until(admitted(lambda: has_checkpoint(store, layout, ONE)), "there is a checkpoint", 300)
        suspends(jobs(release, name)["train"], True)
        until(lambda: not release.active(name), "it is preempted")
        until(lambda: release.state(name, ONE) == "Pending", "the run waits again")
        assert "Kueue" in release.runs(name)[ONE].message
        until(admitted(lambda: release.finished(name)), "it ends", 400)
        succeeds(release, until, name)
        assert resumed_from(release.results(store, name), ONE) > 0
    assert release.runs(name)[ONE].attempt == 1
    release.remove(name)
