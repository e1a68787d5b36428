"""Training runs on several GPUs: the slots, devices and pods that they get, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from observations import given
from stand_ins.clock import FakeClock
from sweeps import small_document, small_sweep
from waiting import until

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.specs import Placement
from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.requests import TrainRequest
from surogate_bench_orchestrator.cli.targets.local.sweep import LocalSweep, require_slots
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import Submit, overlaps, reconcile
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import SLOTS, job_manifest
from surogate_bench_orchestrator.runtimes.kubernetes.objects.pods import complete_request
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings, StoreSettings, Workload
from surogate_bench_orchestrator.runtimes.local.machine import Allotment, Gpu, Machine, allot
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime

GIB = 2**30


def wide_plan(gpus: int = 2, **changes: Any) -> Plan:
    return plan(small_sweep(recipes=["bf16", "fp8"], training={"gpus": gpus}, **changes), "file:///results")


def test_a_training_holds_a_slot_for_each_gpu_and_a_server_one() -> None:
    laid_out = wide_plan()
    assert [task.slots for task in laid_out.training_order] == [2, 2]
    assert laid_out.server.slots == 1


def test_as_many_training_runs_start_as_there_are_gpus_for() -> None:
    laid_out = wide_plan(evaluation={"evaluate_base": False})
    first, second = laid_out.training_order
    for slots, started in ((2, (first,)), (3, (first,)), (4, (first, second))):
        actions = reconcile(laid_out, given(*laid_out.preliminaries, slots=slots))
        assert [a.task for a in actions if isinstance(a, Submit) and a.task.slots == 2] == list(started)


def test_a_training_that_needs_more_slots_than_there_are_is_left_to_the_runtime_to_refuse() -> None:
    laid_out = wide_plan(gpus=4)
    actions = reconcile(laid_out, given(*laid_out.preliminaries, slots=2))
    assert [action.task for action in actions] == [laid_out.training_order[0]]


@pytest.mark.parametrize(
    ("placement", "slots", "each", "expected"),
    [
        (Placement.OVERLAPPED, 2, 2, False),
        (Placement.OVERLAPPED, 3, 2, True),
        (Placement.AUTO, 4, 2, False),  # one training beside a server rather than two
        (Placement.AUTO, 5, 2, True),
        (Placement.AUTO, 8, 2, True),
        (Placement.AUTO, 4, 4, False),
    ],
)
def test_a_server_goes_first_where_it_delays_few_training_runs(
    placement: Placement, slots: int, each: int, *, expected: bool
) -> None:
    assert overlaps(placement, slots, each=each) is expected


@pytest.mark.parametrize(
    ("machine", "trainers", "gpus", "expected"),
    [
        (Machine(cores=2, memory_bytes=8 * GIB), 7, 2, Allotment(slots=2, side_by_side=1, threads=2)),
        (Machine(cores=8, memory_bytes=64 * GIB), 1, 4, Allotment(slots=5, side_by_side=1, threads=8)),
        (Machine(cores=1, memory_bytes=8 * GIB), 1, 2, Allotment(slots=1, side_by_side=1, threads=1)),
        (
            Machine(cores=16, memory_bytes=64 * GIB, gpus=tuple(Gpu(str(number)) for number in range(5))),
            7,
            2,
            Allotment(slots=5, side_by_side=2, threads=8, devices=("0", "1", "2", "3", "4")),
        ),
    ],
)
def test_training_runs_of_several_slots_share_a_machine(
    machine: Machine, trainers: int, gpus: int, expected: Allotment
) -> None:
    assert allot(machine, trainers=trainers, gpus=gpus) == expected


def test_a_local_training_run_uses_the_devices_of_its_slots_and_no_others(tmp_path: Path) -> None:
    allotment = Allotment(slots=3, side_by_side=1, threads=4, devices=("4", "7", "GPU-a"))
    program = 'import os, sys, time; print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True); time.sleep(600)'
    (tmp_path / "child.py").write_text(program)
    command = ["python3", str(tmp_path / "child.py")]
    laid_out = wide_plan()
    first, second = laid_out.training_order
    with LocalRuntime(tmp_path / "state", allotment, FakeClock(), command=lambda _: command) as runtime:
        runtime.submit(first)
        runtime.submit(laid_out.server)
        assert until(lambda: runtime.logs(first.name, tail=1), "its log") == "4,7"
        assert until(lambda: runtime.logs(laid_out.server.name, tail=1), "its log") == "GPU-a"
        with pytest.raises(PermanentError, match="needs 2 slots; 0 of 3 free"):
            runtime.submit(second)
        assert runtime.observe([second.name])[second.name].phase is Phase.ABSENT


def test_a_machine_with_too_few_slots_is_refused_before_anything_starts(tmp_path: Path) -> None:
    laid_out = wide_plan()
    local = LocalSweep(sweep=laid_out.sweep, store=None, plan=laid_out, state=tmp_path, slots=1)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"training\.gpus: only 1 is available on this machine .* \(got 2\)\. Lower it"
    ):
        require_slots(local)


def settings(gpus: int = 1, **changes: Any) -> ClusterSettings:
    return ClusterSettings(
        namespace="team",
        instance="release",
        store=StoreSettings(url="s3://bucket"),
        trainer=Workload(image="trainer:1", gpus=gpus),
        prepare=Workload(image="trainer:1"),
        model_server=Workload(image="server:1", gpus=gpus),
        evaluator=Workload(image="evaluator:1"),
        **changes,
    )


@pytest.mark.parametrize(("configured", "asked"), [(1, "2"), (0, None), (3, "3")])
def test_a_pod_asks_for_a_gpu_for_each_process_and_for_none_on_a_cluster_without(
    configured: int, asked: str | None
) -> None:
    manifest = job_manifest(wide_plan().training_order[0], settings(configured), SchedulingSpec())
    resources = manifest["spec"]["template"]["spec"]["containers"][0]["resources"]
    limit = resources["limits"].get("nvidia.com/gpu")
    assert (None if limit is None else str(limit)) == asked
    assert manifest["metadata"]["annotations"][SLOTS] == "2"


def test_the_processes_of_a_pod_exchange_tensors_in_memory_that_is_large_enough() -> None:
    spec = job_manifest(wide_plan().training_order[0], settings(), SchedulingSpec())["spec"]["template"]["spec"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in spec["volumes"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in spec["containers"][0]["volumeMounts"]  # noqa: S108
    alone = job_manifest(wide_plan(1).training_order[0], settings(), SchedulingSpec())["spec"]["template"]["spec"]
    assert "shm" not in {volume["name"] for volume in alone["volumes"]}


@pytest.mark.parametrize(("limit", "beside"), [(None, 2), (5, 2), (2, 1), (1, 1)])
def test_a_training_in_a_cluster_knows_how_many_may_train_beside_it(limit: int | None, beside: int) -> None:
    request = complete_request(wide_plan().training_order[0], settings(slots=limit), SchedulingSpec())
    assert isinstance(request, TrainRequest)
    assert request.side_by_side == beside


def test_gpus_that_cannot_share_the_forward_passes_of_a_step_are_refused() -> None:
    message = r"training: gpus must divide gradient_accumulation_steps.*gpus is 3, gradient_accumulation_steps 4"
    with pytest.raises(ConfigError, match=message):
        parse_sweep(small_document(training={"gpus": 3}))


def test_one_gpu_is_the_default_and_changes_no_hash() -> None:
    default = small_sweep()
    assert small_sweep(training={"gpus": 1}).spec_hash == default.spec_hash
    assert "gpus" not in default.training.model_dump()
    assert small_sweep(training={"gpus": 2}).spec_hash != default.spec_hash
