"""Limits of the runtime: measured from when a slot was last held, and since when no node can run a pod."""

from typing import Any, cast

from sweeps import small_sweep

from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Phase
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.runtimes.kubernetes.cluster import Cluster
from surogate_bench_orchestrator.runtimes.kubernetes.runtime import KubernetesRuntime
from surogate_bench_orchestrator.runtimes.kubernetes.settings import ClusterSettings, StoreSettings, Workload

Object = dict[str, Any]
PLAN = plan(
    small_sweep(recipes=["bf16", "fp8"]),
    "s3://results",
)
FIRST, SECOND = PLAN.training_order
GRACE_S, PATIENCE_S = 900.0, 86400.0
BUSY = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 No preemption."
NO_GPU = (
    "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available: 1 Preemption is not "
    "helpful for scheduling."
)
START = "1970-01-01T00:00:00Z"


class Caches:
    """Stands for the informers: Jobs that were submitted at second 0, and their pods."""

    namespace = "lab"
    paths: dict[str, str] = {"Job": "/jobs", "Deployment": "/deployments"}  # noqa: RUF012 - as in the class it stands for

    def __init__(self) -> None:
        self.api = self
        self.pods: dict[str, list[Object]] = {}
        self.items: dict[str, Object] = {}
        self.patched: list[tuple[str, Object]] = []

    def submit(self, name: str) -> None:
        marks = {"bench.surogate.ai/slots": "1", "bench.surogate.ai/timeout-s": "86400"}
        metadata = {"name": name, "creationTimestamp": START, "annotations": marks}
        self.items[name] = {"kind": "Job", "metadata": metadata, "spec": {}}

    def pod(self, name: str, *, refused: str = "") -> None:
        placed = {"type": "PodScheduled", "status": str(not refused), "lastTransitionTime": START}
        why = {"reason": "Unschedulable", "message": refused} if refused else {}
        self.pods[name] = [
            {
                "metadata": {"name": f"{name}-pod", "uid": name, "creationTimestamp": START},
                "status": {"phase": "Pending" if refused else "Running", "conditions": [placed | why]},
            }
        ]

    def item(self, name: str) -> Object | None:
        return self.items.get(name)

    def of_sweep(self, sweep: str) -> list[Object]:
        assert sweep == "small"
        return list(self.items.values())

    def pods_by_task(self) -> dict[str, list[Object]]:
        return self.pods

    def refusals(self, _: str) -> list[Object]:
        return []

    def unbound_claims(self) -> list[Object]:
        return []

    def progress(self, _: list[Object]) -> None:
        return None

    def patch(self, path: str, body: Object) -> None:
        self.patched.append((path, body))


class Site:
    """A runtime over these caches, and the time."""

    def __init__(self, scheduling: SchedulingSpec | None = None, slots: int | None = None) -> None:
        workload = Workload(image="none")
        settings = ClusterSettings(
            namespace="lab", instance="lab", store=StoreSettings(url="s3://results"), trainer=workload,
            prepare=workload, model_server=workload, evaluator=workload, slots=slots,
            unschedulable_grace_s=GRACE_S, placement_timeout_s=PATIENCE_S,
        )  # fmt: skip
        self.now = 0.0
        self.caches = Caches()
        self.runtime = KubernetesRuntime(
            cast("Cluster", self.caches), settings, sweep="small", scheduling=scheduling, clock=lambda: self.now
        )
        for task in (FIRST, SECOND):
            self.caches.submit(task.name)

    def observe(self, at: float) -> tuple[Phase, str]:
        """Enforce limits at a moment, and observe the second trainer."""
        self.now = at
        names = [FIRST.name, SECOND.name]
        self.runtime.enforce_limits(names)
        observation = self.runtime.observe(names)[SECOND.name]
        return observation.phase, observation.reason


def test_a_trainer_waits_behind_another_of_its_sweep_for_as_long_as_that_takes() -> None:
    site = Site()
    site.caches.pod(FIRST.name)
    site.caches.pod(SECOND.name, refused=BUSY)
    assert site.observe(3 * PATIENCE_S - 10) == (Phase.PENDING, "Unschedulable")
    site.caches.pods.pop(FIRST.name)
    assert site.observe(4 * PATIENCE_S - 20) == (Phase.PENDING, "Unschedulable")
    assert site.observe(4 * PATIENCE_S) == (Phase.FAILED, "DeadlineExceeded")


def test_nodes_that_go_while_a_trainer_waits_may_come_back_within_its_grace() -> None:
    site = Site()
    site.caches.pod(SECOND.name, refused=BUSY)
    assert site.observe(5000) == (Phase.PENDING, "Unschedulable")
    for gone in (6000, 8000):
        site.caches.pod(SECOND.name, refused=NO_GPU)
        assert site.observe(gone) == (Phase.PENDING, "Unschedulable")
        assert site.observe(gone + GRACE_S) == (Phase.PENDING, "Unschedulable")
        site.caches.pod(SECOND.name, refused=BUSY)
        assert site.observe(gone + GRACE_S + 1) == (Phase.PENDING, "Unschedulable")
    site.caches.pod(SECOND.name, refused=NO_GPU)
    assert site.observe(10000) == (Phase.PENDING, "Unschedulable")
    assert site.observe(10001 + GRACE_S) == (Phase.FAILED, "NoCapableNode")


def test_observing_writes_nothing_and_a_task_past_a_limit_is_stopped_when_limits_are_enforced() -> None:
    site = Site()
    site.caches.pod(SECOND.name, refused=BUSY)
    site.now = PATIENCE_S + 1
    assert site.runtime.observe([SECOND.name])[SECOND.name].phase is Phase.FAILED
    assert site.caches.patched == []
    site.runtime.enforce_limits([SECOND.name])
    [(path, body)] = site.caches.patched
    assert path == f"/jobs/{SECOND.name}"
    assert body["spec"] == {"activeDeadlineSeconds": 1}


def test_only_a_limit_is_a_number_of_slots() -> None:
    assert Site().runtime.capacity() is None
    limited = Site(SchedulingSpec(slots=2), slots=3)
    limited.caches.pod(FIRST.name)
    assert limited.runtime.capacity() == 2
    limited.caches.pod(SECOND.name, refused=BUSY)
    assert limited.runtime.capacity() == 1
