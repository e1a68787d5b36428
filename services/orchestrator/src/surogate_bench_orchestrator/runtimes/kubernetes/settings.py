"""Settings of an installation; the chart writes them, the controller reads them."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from surogate_bench.errors import ConfigError
from surogate_bench.specs.base import Spec
from surogate_bench_orchestrator.resource.scheduling import (
    DnsLabel,
    DnsName,
    SchedulingSpec,
)

Quantities = dict[str, str | int]
"""Kubernetes quantities by resource, for example ``{"cpu": "500m", "memory": "2Gi"}``."""


class SecretKey(Spec):
    """One key of a Secret."""

    name: DnsName
    key: str


class Resources(Spec):
    """A container's resources, without the GPU."""

    requests: Quantities = Field(default_factory=dict)
    limits: Quantities = Field(default_factory=dict)


class Workload(Spec):
    """One kind of pod."""

    image: str
    command: tuple[str, ...] | None = Field(None, description="Replaces the image's entry point.")
    resources: Resources = Resources()
    gpus: int = Field(0, ge=0, description="GPUs of each pod; 0 runs it on the CPU.")
    threads: int | None = Field(None, ge=1, description="CPU threads; by default all that are visible to the pod.")
    env: dict[str, str] = Field(default_factory=dict, description="Additional environment variables.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Additional annotations of the pod.")


class StoreSettings(Spec):
    """The object store for results."""

    url: str = Field(description="s3://bucket/prefix, gs://… or az://….")
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables such as AWS_ENDPOINT_URL and AWS_REGION."
    )
    secret: DnsName | None = Field(None, description="Secret whose keys are environment variables with credentials.")
    credentials: Path | None = Field(
        None, description="Folder of the controller in which that Secret's keys are files; empty while there is none."
    )


class HubSettings(Spec):
    """The Hugging Face hub."""

    enabled: bool = Field(True, description="Whether pods may reach it.")
    token: SecretKey | None = Field(None, description="Token for gated models.")
    cache_claim: DnsName | None = Field(
        None,
        description="PersistentVolumeClaim for a shared cache of models and data; else each pod has its own.",
    )


class ClusterSettings(Spec):
    """Settings of the controller."""

    namespace: DnsLabel
    instance: DnsLabel = Field(description="Name of the release: the label app.kubernetes.io/instance.")
    store: StoreSettings
    trainer: Workload
    prepare: Workload = Field(description="The trainer's image, without a GPU.")
    model_server: Workload
    evaluator: Workload
    hub: HubSettings = HubSettings()
    vllm_api_key: SecretKey | None = Field(None, description="Key that vLLM requires; shared by server and evaluators.")
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[DnsName, ...] = ()
    service_account: DnsName = Field(
        "default", description="ServiceAccount of the task pods; its token is not mounted."
    )
    gpu_resource: str = Field("nvidia.com/gpu", description="Extended resource that counts GPUs.")
    scheduling: SchedulingSpec = SchedulingSpec()
    slots: int | None = Field(
        None,
        ge=1,
        description="Maximum number of pods of one sweep that hold a GPU at once, unless the sweep sets it. Without "
        "it, pods are queued, and the scheduler places as many as there are GPUs for.",
    )
    unschedulable_grace_s: float = Field(
        900.0,
        ge=0,
        description="How long a pod that no node can run waits for one that can, such as one that an autoscaler "
        "adds, before its run is skipped.",
    )
    start_grace_s: float = Field(
        300.0,
        ge=0,
        description="How long a pod that cannot start (missing image or Secret) waits before its task fails.",
    )
    placement_timeout_s: float = Field(
        86400.0,
        gt=0,
        description="How long a pod waits for resources on a node that could run it, while no other pod of its sweep "
        "runs.",
    )
    ttl_after_finished_s: int = Field(
        3600, ge=60, description="How long a finished Job and its log are kept, once its result is in the store."
    )
    termination_grace_s: int = Field(30, ge=1, description="Seconds between SIGTERM and SIGKILL.")
    shm_size: str = Field("1Gi", description="Shared memory of the model server, and of training on several GPUs.")


def load_settings(path: Path) -> ClusterSettings:
    """Read the controller's configuration.

    Raises:
        ConfigError: it is missing or invalid.
    """
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ClusterSettings.model_validate(document)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", field="config", value=str(path), remedy="Give the controller's YAML."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {error}", field="config", value=str(path), remedy="Correct it.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(
            first["msg"],
            field="config." + ".".join(map(str, first["loc"])),
            remedy=f"Correct it in the chart's values; it was read from {path}.",
        ) from error
