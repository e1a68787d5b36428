"""The Job of a foreign trainer: the user's image between two containers of ours, without anything that is ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from sweeps import small_document

from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench.stages.requests import ForeignTrainRequest, PrepareRequest
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.resource.scheduling import SchedulingSpec
from surogate_bench_orchestrator.runtimes.kubernetes.objects.labels import PREPARE_REQUEST, REQUEST, RUN, STAGE
from surogate_bench_orchestrator.runtimes.kubernetes.objects.manifests import COMMAND_TIMEOUT, job_manifest
from surogate_bench_orchestrator.runtimes.kubernetes.settings import (
    ClusterSettings,
    HubSettings,
    Resources,
    SecretKey,
    StoreSettings,
    Workload,
)

SETTINGS = ClusterSettings(
    namespace="team",
    instance="release",
    store=StoreSettings(url="s3://bucket", env={"AWS_REGION": "eu"}, secret="store-credentials"),
    hub=HubSettings(token=SecretKey(name="hub", key="token"), cache_claim="models"),
    trainer=Workload(
        image="trainer:1",
        gpus=1,
        threads=3,
        env={"OWN": "1"},
        resources=Resources(requests={"memory": "8Gi"}, limits={"memory": "32Gi"}),
    ),
    prepare=Workload(image="trainer:1", resources=Resources(requests={"memory": "2Gi"})),
    model_server=Workload(image="server:1", gpus=1),
    evaluator=Workload(image="evaluator:1"),
    image_pull_policy="Always",
    image_pull_secrets=("registry",),
)
Object = dict[str, Any]
SCRATCH = "/tmp"  # noqa: S108 - of a container


def planned(**changes: Any) -> Plan:
    entry = {"name": "other", "command": ["{python}", "/train.py", "{request}"], "image": "team/other:1"} | changes
    return plan(parse_sweep(small_document(trainers=[entry], seeds=[0, 1], train_timeout_s=900)), "s3://bucket")


def job(scheduling: SchedulingSpec | None = None, **changes: Any) -> Object:
    task = next(run.train for run in planned(**changes).runs if run.name == "other-s1")
    assert task is not None
    return job_manifest(task, SETTINGS, scheduling or SchedulingSpec())


def containers(manifest: Object) -> dict[str, Object]:
    pod = manifest["spec"]["template"]["spec"]
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


def mounts(container: Object) -> dict[str, str]:
    return {each["mountPath"]: each["name"] for each in container["volumeMounts"]}


def values(container: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_the_users_image_runs_between_a_container_that_prepares_and_one_that_collects() -> None:
    manifest = job()
    prepare, command, main = containers(manifest).values()
    assert [each["image"] for each in (prepare, command, main)] == ["trainer:1", "team/other:1", "trainer:1"]
    annotations = manifest["spec"]["template"]["metadata"]["annotations"]
    steps = []
    for container, annotation in ((prepare, PREPARE_REQUEST), (main, REQUEST)):
        request = ForeignTrainRequest.model_validate(json.loads(annotations[annotation]))
        assert (request.trainer, request.seed, request.threads, request.side_by_side) == ("other", 1, 3, 4)
        assert request.in_container is not None
        assert str(request.in_container.folder) in mounts(container)
        steps.append((request.in_container.step, Path(container["args"][0]).name))
    items = manifest["spec"]["template"]["spec"]["volumes"][0]["downwardAPI"]["items"]
    named = {each["path"]: each["fieldRef"]["fieldPath"] for each in items}
    assert steps == [("prepare", "prepare-request.json"), ("collect", "request.json")]
    assert named["prepare-request.json"] == f"metadata.annotations['{PREPARE_REQUEST}']"
    assert named["request.json"] == f"metadata.annotations['{REQUEST}']"
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert (labels[RUN], labels[STAGE], labels["app.kubernetes.io/component"]) == ("other-s1", "train", "trainer")


def test_the_command_gets_the_shared_folder_and_a_scratch_folder_and_nothing_of_ours() -> None:
    command = containers(job(environment={"LEVEL": "high"}))["trainer"]
    assert command["command"] == ["python3", "/train.py", "/trainer/request/request.json"]
    assert mounts(command) == {"/trainer": "trainer", SCRATCH: "trainer-scratch"}
    assert command["workingDir"] == "/trainer/scratch"
    assert values(command) == {
        "HOME": SCRATCH, "TMPDIR": SCRATCH, "USER": "bench", "OMP_NUM_THREADS": "3", "LEVEL": "high",
        "SUROGATE_BENCH_TRAINER_REQUEST": "/trainer/request/request.json",
    }  # fmt: skip
    assert "envFrom" not in command
    text = json.dumps(command)
    assert not [word for word in ("secret", "AWS", "HF_", "OWN", "models") if word in text]


def test_every_volume_that_a_container_mounts_is_one_of_the_pod() -> None:
    manifest = job()
    declared = {each["name"] for each in manifest["spec"]["template"]["spec"]["volumes"]}
    found = containers(manifest)
    assert list(found) == ["prepare", "trainer", "main"]
    assert {name: set(mounts(each).values()) - declared for name, each in found.items()} == {
        name: set() for name in found
    }


def test_no_credential_of_the_pods_account_reaches_the_command() -> None:
    template = job()["spec"]["template"]
    assert not template["spec"]["automountServiceAccountToken"]
    skipped = [name for name, value in template["metadata"]["annotations"].items() if value == "trainer"]
    assert skipped == ["eks.amazonaws.com/skip-containers", "azure.workload.identity/skip-containers"]


def test_all_three_satisfy_the_restricted_standard_and_the_last_output_is_kept() -> None:
    manifest = job()
    pod = manifest["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    for container in containers(manifest).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert (container["terminationMessagePolicy"], container["imagePullPolicy"]) == (
            "FallbackToLogsOnError", "Always",
        )  # fmt: skip


def test_the_command_and_the_validation_of_what_it_left_have_the_gpus_of_training() -> None:
    prepare, command, main = containers(job()).values()
    assert prepare["resources"] == {"requests": {"memory": "2Gi"}, "limits": {}}
    assert command["resources"] == main["resources"]
    assert main["resources"] == {
        "requests": {"memory": "8Gi", "nvidia.com/gpu": 1},
        "limits": {"memory": "32Gi", "nvidia.com/gpu": 1},
    }
    assert [each["containerPort"] for each in main["ports"]] == [9400]
    assert "ports" not in prepare


def test_what_kubernetes_would_replace_reaches_the_command_as_it_is_written() -> None:
    command = containers(job(command=["sh", "-c", "echo $(HOME) $$ $HOME"], environment={"A": "$(HOME)"}))["trainer"]
    assert command["command"][2] == "echo $$(HOME) $$$$ $$HOME"
    assert values(command)["A"] == "$$(HOME)"


def test_attempts_are_repeated_after_a_signal_or_where_the_command_asks_and_after_no_other_failure() -> None:
    disruption, *rules = job()["spec"]["podFailurePolicy"]["rules"]
    assert disruption["action"] == "Ignore"
    codes = {rule["onExitCodes"]["containerName"]: rule["onExitCodes"] for rule in rules}
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert [codes[name]["values"] for name in ("prepare", "main")] == [[2, 3, 4]] * 2
    assert (codes["trainer"]["operator"], codes["trainer"]["values"]) == ("NotIn", [75, *range(129, 193)])


@pytest.mark.parametrize(("changes", "seconds"), [({}, "900"), ({"timeout_s": 60.5}, "60.5")])
def test_the_job_says_how_long_the_command_may_take_in_an_attempt(changes: dict[str, Any], seconds: str) -> None:
    assert job(**changes)["metadata"]["annotations"][COMMAND_TIMEOUT] == seconds


def test_the_wait_for_other_trainers_counts_foreign_ones() -> None:
    manifest = job()
    own = 900 * 3 + 3600
    assert manifest["spec"]["activeDeadlineSeconds"] == 2 * 2 * own + SETTINGS.placement_timeout_s


def test_preparation_does_not_search_for_programs_that_are_in_an_image() -> None:
    template = job_manifest(planned().prepare, SETTINGS, SchedulingSpec())["spec"]["template"]
    request = PrepareRequest.model_validate(json.loads(template["metadata"]["annotations"][REQUEST]))
    assert request.in_images
    assert "initContainers" not in template["spec"]
