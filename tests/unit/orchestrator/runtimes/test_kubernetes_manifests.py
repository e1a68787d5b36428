"""The API objects that a task becomes."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweeps import small_document

from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.requests import EvaluateRequest, ServeRequest, TrainRequest, read_request
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import MAX_NAME, Task
from surogate_bench_orchestrator.resource.scheduling import CapabilityRule, SchedulingSpec, Toleration
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import REQUEST, RUN, STAGE, SWEEP, TASK
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import (
    deployment_manifest,
    job_manifest,
    service_manifest,
)
from surogate_bench_orchestrator.runtimes.kubernetes.objects.pods import capability_terms
from surogate_bench_orchestrator.runtimes.kubernetes.settings import (
    ClusterSettings,
    HubSettings,
    Resources,
    SecretKey,
    StoreSettings,
    Workload,
)

SPEC = small_document(recipes=["bf16", "fp8", "fp4"])
PLAN = plan(parse_sweep(SPEC), "s3://bucket")
OWNER = {"apiVersion": "bench.surogate.ai/v1alpha1", "kind": "RecipeSweep", "name": "small", "uid": "u"}


def settings(**changes: Any) -> ClusterSettings:
    return ClusterSettings(
        namespace="team",
        instance="release",
        store=StoreSettings(url="s3://bucket", env={"AWS_REGION": "eu"}, secret="store-credentials"),
        trainer=Workload(image="trainer:1", gpus=1),
        prepare=Workload(image="trainer:1"),
        model_server=Workload(image="server:1", gpus=1),
        evaluator=Workload(image="evaluator:1"),
        **changes,
    )


def train_job(recipe: str = "bf16", scheduling: SchedulingSpec | None = None, **changes: Any) -> dict[str, Any]:
    task = next(run.train for run in PLAN.runs if run.name == f"{recipe}-s0")
    assert task is not None
    return job_manifest(task, settings(**changes), scheduling or SchedulingSpec(), OWNER)


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]


def variables(manifest: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in pod_of(manifest)["containers"][0]["env"]}


def test_a_job_carries_its_whole_request(tmp_path: Path) -> None:
    manifest = train_job()
    file = tmp_path / "request.json"
    file.write_text(manifest["spec"]["template"]["metadata"]["annotations"][REQUEST])
    request = read_request(file)
    assert isinstance(request, TrainRequest)
    assert (request.recipe, request.sweep, request.store) == ("bf16", PLAN.sweep, "s3://bucket")
    path = pod_of(manifest)["volumes"][0]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"]
    assert path == f"metadata.annotations['{REQUEST}']"


def test_labels_say_whose_pod_it_is() -> None:
    labels = train_job()["spec"]["template"]["metadata"]["labels"]
    assert labels[SWEEP] == "small"
    assert (labels[RUN], labels[STAGE]) == ("bf16-s0", "train")
    assert labels["app.kubernetes.io/component"] == "trainer"
    assert train_job()["metadata"]["ownerReferences"] == [OWNER]


def test_retries_spare_what_no_attempt_can_mend_and_do_not_count_disruptions() -> None:
    spec = train_job()["spec"]
    assert spec["backoffLimit"] == PLAN.sweep.max_attempts - 1
    disruption, final = spec["podFailurePolicy"]["rules"]
    assert (disruption["action"], disruption["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (final["action"], final["onExitCodes"]["values"]) == ("FailJob", [2, 3, 4])


@pytest.mark.parametrize("make", ["train", "serve"])
def test_pods_satisfy_the_restricted_standard(make: str) -> None:
    manifest = train_job() if make == "train" else deployment_manifest(PLAN.server, settings(), SchedulingSpec())
    pod = pod_of(manifest)
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_only_what_trains_or_serves_asks_for_a_gpu() -> None:
    def gpus(manifest: dict[str, Any]) -> Any:
        return pod_of(manifest)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")

    assert gpus(train_job()) == 1
    assert gpus(deployment_manifest(PLAN.server, settings(), SchedulingSpec())) == 1
    for task in (PLAN.prepare, *checks(), PLAN.runs[0].evaluate):
        assert gpus(job_manifest(task, settings(), SchedulingSpec())) is None


def checks(**evaluation: Any) -> tuple[Task, ...]:
    """The serving check and the task check."""
    changes = {"serving": {"extra_args": ["--enable-prefix-caching"]}, "evaluation": evaluation}
    return plan(parse_sweep(SPEC | changes), "s3://bucket").checks


def test_a_check_is_a_job_of_the_service_that_knows_with_the_resources_of_preparation() -> None:
    needs = Resources(requests={"memory": "2Gi"})
    own = settings().model_copy(update={"prepare": Workload(image="trainer:1", resources=needs)})
    serving, check = (job_manifest(task, own, SchedulingSpec(), OWNER) for task in checks())
    assert [pod_of(job)["containers"][0]["image"] for job in (serving, check)] == ["server:1", "evaluator:1"]
    assert pod_of(serving)["containers"][0]["resources"] == {"requests": {"memory": "2Gi"}, "limits": {}}
    assert "livenessProbe" not in pod_of(serving)["containers"][0]
    labels = [job["metadata"]["labels"] for job in (serving, check)]
    assert [each[STAGE] for each in labels] == ["check-serving", "check-task"]
    assert [each["app.kubernetes.io/component"] for each in labels] == ["model-server", "evaluator"]
    assert not [each for each in labels if RUN in each]


def test_a_task_that_keeps_its_own_data_may_ask_the_hub_and_no_other_does() -> None:
    hub = HubSettings(token=SecretKey(name="hub", key="token"), cache_claim="models")

    def asks(task: Task) -> bool:
        job = job_manifest(task, settings(hub=hub), SchedulingSpec())
        claims = [each for each in pod_of(job)["volumes"] if "persistentVolumeClaim" in each]
        assert ("HF_TOKEN" in variables(job)) == bool(claims)
        return bool(claims)

    assert [asks(task) for task in checks()] == [False, False]
    assert [asks(task) for task in checks(task="gsm8k", keep_from_task=["data", "prompt"])] == [False, True]
    assert not asks(PLAN.runs[0].evaluate)


def test_credentials_come_from_secrets_only() -> None:
    keyed = {
        "hub": HubSettings(token=SecretKey(name="hub", key="token")),
        "vllm_api_key": SecretKey(name="vllm", key="key"),
    }
    trainer = train_job(**keyed)
    assert pod_of(trainer)["containers"][0]["envFrom"] == [{"secretRef": {"name": "store-credentials"}}]
    assert variables(trainer)["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert "SUROGATE_BENCH_VLLM_API_KEY" not in variables(trainer)
    for manifest in (
        deployment_manifest(PLAN.server, settings(**keyed), SchedulingSpec()),
        job_manifest(PLAN.runs[0].evaluate, settings(**keyed), SchedulingSpec()),
    ):
        assert variables(manifest)["SUROGATE_BENCH_VLLM_API_KEY"] == {"secretKeyRef": {"name": "vllm", "key": "key"}}


def test_without_the_hub_nothing_asks_it() -> None:
    assert variables(train_job(hub=HubSettings(enabled=False)))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in variables(train_job())


def test_a_shared_cache_is_a_volume_claim_of_the_pods_that_load_models() -> None:
    def cache(manifest: dict[str, Any]) -> Any:
        return next(each for each in pod_of(manifest)["volumes"] if each["name"] == "cache")

    keyed = {"hub": HubSettings(cache_claim="models", token=SecretKey(name="hub", key="token"))}
    for manifest in (
        train_job(**keyed),
        job_manifest(PLAN.prepare, settings(**keyed), SchedulingSpec()),
        deployment_manifest(PLAN.server, settings(**keyed), SchedulingSpec()),
    ):
        assert cache(manifest)["persistentVolumeClaim"] == {"claimName": "models"}
    evaluator = job_manifest(PLAN.runs[0].evaluate, settings(**keyed), SchedulingSpec())
    assert cache(evaluator)["emptyDir"] == {}
    assert "HF_TOKEN" not in variables(evaluator)


def test_the_server_listens_to_other_pods_and_is_found_by_its_name() -> None:
    deployment = deployment_manifest(PLAN.server, settings(), SchedulingSpec())
    request = ServeRequest.model_validate(
        json.loads(deployment["spec"]["template"]["metadata"]["annotations"][REQUEST])
    )
    assert request.host != "127.0.0.1"
    service = service_manifest(PLAN.server, settings())
    assert service["metadata"]["name"] == deployment["metadata"]["name"] == PLAN.server.name
    assert service["spec"]["selector"] == {TASK: PLAN.server.name}
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ("required", "requiredDuringSchedulingIgnoredDuringExecution"),
        ("preferred", "preferredDuringSchedulingIgnoredDuringExecution"),
        (None, "preferredDuringSchedulingIgnoredDuringExecution"),
    ],
)
def test_a_run_asks_for_the_hardware_of_the_engine_that_auto_prefers(rule: CapabilityRule | None, kind: str) -> None:
    affinity = pod_of(train_job("fp8", SchedulingSpec(compute_capability=rule)))["affinity"]["nodeAffinity"]
    assert list(affinity) == [kind]
    assert "affinity" not in pod_of(train_job("bf16", SchedulingSpec(compute_capability=rule)))


@pytest.mark.parametrize("rule", ["required", "preferred", "ignored", None])
def test_fp4_runs_on_every_gpu_because_it_is_emulated(rule: CapabilityRule | None) -> None:
    assert "affinity" not in pod_of(train_job("fp4", SchedulingSpec(compute_capability=rule)))


@pytest.mark.parametrize(
    ("engine", "asking"),
    [
        ("auto", {"fp8"}),
        ("torch", {"fp8", "fp4"}),
        ("transformer-engine", {"fp8", "fp4"}),
        ("emulated", set()),
    ],
)
def test_the_engine_of_the_sweep_decides_which_recipes_ask_for_hardware(engine: str, asking: set[str]) -> None:
    laid_out = plan(parse_sweep(SPEC | {"engine": engine}), "s3://bucket")
    scheduling = SchedulingSpec(compute_capability="required")
    pods = {
        task.request.recipe: pod_of(job_manifest(task, settings(), scheduling))
        for task in laid_out.training_order
        if isinstance(task.request, TrainRequest)
    }
    assert {recipe for recipe, pod in pods.items() if "affinity" in pod} == asking


def test_hardware_needs_can_be_ignored() -> None:
    assert "affinity" not in pod_of(train_job("fp8", SchedulingSpec(compute_capability="ignored")))


@pytest.mark.parametrize(
    ("needs", "has", "suits"),
    [
        ((8, 9), (8, 9), True),
        ((8, 9), (8, 6), False),
        ((8, 9), (9, 0), True),
        ((10, 0), (9, 0), False),
        ((10, 0), (10, 0), True),
        ((10, 0), (12, 0), True),
    ],
)
def test_capability_terms_select_as_version_numbers_do(
    needs: tuple[int, int], has: tuple[int, int], suits: bool
) -> None:
    labels = dict(zip(("nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"), has, strict=True))

    def holds(rule: dict[str, Any]) -> bool:
        value, required = labels[rule["key"]], int(rule["values"][0])
        return value > required if rule["operator"] == "Gt" else value == required

    assert any(all(map(holds, term["matchExpressions"])) for term in capability_terms(*needs)) is suits


def test_scheduling_wishes_reach_the_pod() -> None:
    wishes = SchedulingSpec(
        queue_name="bench",
        priority_class_name="low",
        runtime_class_name="nvidia",
        node_selector={"pool": "gpu"},
        tolerations=(Toleration(key="gpu", operator="Exists", effect="NoSchedule"),),
    )
    manifest = train_job(scheduling=wishes)
    pod = pod_of(manifest)
    assert (pod["priorityClassName"], pod["runtimeClassName"], pod["nodeSelector"]) == (
        "low",
        "nvidia",
        {"pool": "gpu"},
    )
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "bench"
    assert manifest["spec"]["suspend"]
    assert "runtimeClassName" not in pod_of(job_manifest(PLAN.prepare, settings(), wishes))


def test_threads_are_passed_to_the_service_and_its_libraries() -> None:
    threaded = settings().model_copy(update={"evaluator": Workload(image="e:1", threads=2)})
    manifest = job_manifest(PLAN.runs[0].evaluate, threaded, SchedulingSpec())
    request = EvaluateRequest.model_validate(
        json.loads(manifest["spec"]["template"]["metadata"]["annotations"][REQUEST])
    )
    assert request.threads == 2
    assert variables(manifest)["OMP_NUM_THREADS"] == "2"


def test_a_trainer_knows_how_many_may_train_beside_it() -> None:
    def side_by_side(scheduling: SchedulingSpec) -> int:
        annotations = train_job(scheduling=scheduling)["spec"]["template"]["metadata"]["annotations"]
        return TrainRequest.model_validate(json.loads(annotations[REQUEST])).side_by_side

    assert side_by_side(SchedulingSpec(slots=2)) == 2
    assert side_by_side(SchedulingSpec()) == len(PLAN.sweep.recipes)
    assert side_by_side(SchedulingSpec(slots=1)) == 1


def test_a_job_may_wait_for_all_other_trainers_of_its_sweep_before_its_own_time_begins() -> None:
    deadline = train_job()["spec"]["activeDeadlineSeconds"]
    assert deadline == len(PLAN.sweep.recipes) * PLAN.sweep.train_timeout_s + settings().placement_timeout_s


def test_the_end_of_the_log_stands_in_for_a_message_that_a_service_could_not_write() -> None:
    for manifest in (train_job(), deployment_manifest(PLAN.server, settings(), SchedulingSpec())):
        [container] = pod_of(manifest)["containers"]
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_every_model_server_is_a_deployment_and_a_service_of_its_own() -> None:
    laid_out = plan(parse_sweep(SPEC | {"serving": {"under": ["own"]}}), "s3://bucket")
    names = {deployment_manifest(task, settings(), SchedulingSpec())["metadata"]["name"] for task in laid_out.servers}
    assert names == {service_manifest(task, settings())["metadata"]["name"] for task in laid_out.servers}
    assert len(names) == 3
    stages = [
        deployment_manifest(each, settings(), SchedulingSpec())["metadata"]["labels"][STAGE]
        for each in laid_out.servers
    ]
    assert stages == ["serve", "serve-fp8", "serve-fp4"]


def test_a_server_under_a_recipe_asks_for_the_hardware_that_training_under_it_does() -> None:
    laid_out = plan(parse_sweep(SPEC | {"serving": {"under": ["all"]}}), "s3://bucket")
    scheduling = SchedulingSpec(compute_capability="required")
    published, fp8, fp4 = (pod_of(deployment_manifest(task, settings(), scheduling)) for task in laid_out.servers)
    assert fp8["affinity"] == pod_of(train_job("fp8", scheduling))["affinity"]
    assert "affinity" not in published
    assert "affinity" not in fp4
    scoring = next(each.task for each in laid_out.runs[0].evaluations if each.under == "fp8")
    assert "affinity" not in pod_of(job_manifest(scoring, settings(), scheduling))


@pytest.mark.parametrize("engine", ["torch", "transformer-engine"])
def test_a_server_under_fp4_runs_on_every_gpu_whatever_engine_trains_because_it_emulates(engine: str) -> None:
    laid_out = plan(parse_sweep(SPEC | {"serving": {"under": ["all"]}, "engine": engine}), "s3://bucket")
    scheduling = SchedulingSpec(compute_capability="required")
    published, fp8, fp4 = (pod_of(deployment_manifest(task, settings(), scheduling)) for task in laid_out.servers)
    assert ["affinity" in pod for pod in (published, fp8, fp4)] == [False, True, False]


def test_a_merged_adapter_has_a_deployment_with_a_name_that_is_valid_whatever_the_lengths() -> None:
    long = {"name": "r" * 40, "title": "Long", "weight_storage": "bf16", "compute": "fp8-hybrid"}
    serving = {"under": ["all"], "merged": True}
    document = small_document(name="s" * 40, recipes=["bf16", long], seeds=[0, 4294967295], serving=serving)
    laid_out = plan(parse_sweep(document), "s3://bucket")
    deployments = [deployment_manifest(task, settings(), SchedulingSpec()) for task in laid_out.servers]
    names = [each["metadata"]["name"] for each in deployments]
    assert len(set(names)) == len(names) == 2 + 4 * 2
    assert names == [service_manifest(task, settings())["metadata"]["name"] for task in laid_out.servers]
    for each in deployments:
        labels = each["metadata"]["labels"]
        assert all(len(value) <= MAX_NAME for value in (each["metadata"]["name"], *labels.values()))
    merged = deployments[-1]["metadata"]["labels"]
    assert (merged[RUN], merged[STAGE]) == (f"{'r' * 40}-s4294967295", f"serving-merged-{'r' * 40}")
