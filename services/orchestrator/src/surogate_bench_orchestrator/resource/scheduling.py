"""Where the pods of a sweep may run: `spec.scheduling` of the resource, and the installation's defaults."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from surogate_bench.specs.base import Spec

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]

CapabilityRule = Literal["required", "preferred", "ignored"]


class Toleration(Spec):
    """A toleration as in a pod's spec."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = Field(None, ge=0)  # noqa: N815 - Kubernetes' name


class SchedulingSpec(Spec):
    """Where a sweep's pods may run. A sweep's own values replace the installation's, field by field."""

    queue_name: DnsName | None = Field(
        None, description="Kueue LocalQueue; workloads start suspended and Kueue admits them."
    )
    priority_class_name: DnsName | None = Field(None, description="PriorityClass of every pod.")
    runtime_class_name: DnsName | None = Field(None, description="RuntimeClass of the pods that hold a GPU.")
    node_selector: dict[str, str] | None = Field(None, description="Labels that a node must have.")
    tolerations: tuple[Toleration, ...] | None = Field(None, description="Taints that pods tolerate.")
    compute_capability: CapabilityRule | None = Field(
        None,
        description="How the compute capability that a recipe's engine needs affects placement: nodes without it are "
        "not used (required), are used last (preferred, the default), or are used like any other "
        "(ignored). Emulated recipes need none. Requires the labels of GPU feature discovery.",
    )
    slots: int | None = Field(
        None, ge=1, le=1000, description="Maximum number of pods of the sweep that hold a GPU at once; others wait."
    )
