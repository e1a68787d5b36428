"""The unit of work that a runtime runs, and the observation of its state."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from surogate_bench.contract import Service
from surogate_bench.layout import BASE_RUN, eval_stage
from surogate_bench.processes.progress import Progress
from surogate_bench.stages.requests import AnyRequest, CheckRequest, EvaluateRequest, ForeignTrainRequest, ServeRequest

MAX_NAME = 63
"""Longest DNS label (RFC 1123): task names become names of Kubernetes objects and their label values."""

DEADLINE_EXCEEDED = "DeadlineExceeded"
"""Reason of a task that was stopped at its deadline; Kubernetes uses the same for a Job."""

TaskRequest = AnyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A unit of work: a stage, which runs until it ends, or a server, which runs until it is deleted."""

    name: str
    """A deterministic, unique DNS label: a task that is submitted twice runs once."""
    service: Service
    request: TaskRequest
    """The runtime fills in ports and thread counts, the orchestrator the server's address."""
    slots: int
    """Accelerators (or shares of the CPU) that it holds while it is pending or running."""
    max_attempts: int
    """Maximum number of attempts; for a server, of consecutive attempts that do not become ready."""
    timeout_s: float
    """Seconds from submission, over all attempts, until it is stopped; for a server, seconds to become ready."""
    output: str | None
    """Prefix of its stage in the store; None for a server."""

    def __hash__(self) -> int:
        """Hash by name, which is unique; a request may hold mappings, which have no hash."""
        return hash(self.name)

    @property
    def is_server(self) -> bool:
        """Whether it runs until deleted."""
        return self.output is None


def overdue(timeout_s: float, *, is_server: bool) -> str:
    """Return the message of a task that was stopped at its deadline.

    Args:
        timeout_s: The deadline, seconds.
        is_server: Whether it had to become ready, rather than to end.
    """
    return f"{'was not ready' if is_server else 'had not ended'} after {timeout_s:g} s"


class Phase(StrEnum):
    """State of a task as a runtime reports it."""

    ABSENT = "absent"  # not known to the runtime: never submitted, deleted, or lost
    PENDING = "pending"  # waits for its first or next attempt; a server: not ready yet
    RUNNING = "running"  # a server: ready
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # permanently: no attempt is left

    @property
    def is_active(self) -> bool:
        """Whether it holds its slots, or is queued for them."""
        return self in {Phase.PENDING, Phase.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A task as a runtime observes it at one moment."""

    phase: Phase
    attempt: int = 0
    """1 for the first."""
    reason: str = ""
    """Reason of the last failure in CamelCase: as the service reports it, or Killed, DeadlineExceeded…"""
    message: str = ""
    progress: Progress | None = None
    elapsed_s: float | None = None
    """Seconds since submission; for one that ended, until then."""
    queued: bool = False
    """It is pending and holds no slot, whether or not the reason is known yet."""
    unplaced: bool = False
    """It is pending because resources are lacking, and holds no slot."""


ABSENT = Observation(phase=Phase.ABSENT)


def stage_of(task: Task) -> str:
    """Return the name of a task's stage for labels and logs."""
    request = task.request
    if isinstance(request, CheckRequest):
        return f"check-{request.subject}" + ("" if request.task is None else f"-{request.task}")
    if isinstance(request, ServeRequest):
        return serve_stage(request.under, request.merged)
    if isinstance(request, ForeignTrainRequest):
        return "train"
    if isinstance(request, EvaluateRequest):
        return eval_stage(request.under, merged=request.merged, task=request.task)
    return request.kind


def serve_stage(under: str | None, merged: str | None = None) -> str:
    """Name a model server among those of its sweep, as labels and logs do.

    Args:
        under: Recipe that it serves the base under.
        merged: Run whose adapter is merged into the base. The name is one among those of that run: no recipe has a name
            that leads to it.
    """
    if merged is not None:
        return f"serving-{eval_stage(under, merged=True)}"
    return "serve" if under is None else f"serve-{under}"


def further_of(task: Task) -> str | None:
    """Return the further task of lm-eval's that a check or evaluation is of; None for the primary one, and others."""
    request = task.request
    return request.task if isinstance(request, CheckRequest | EvaluateRequest) else None


def adapter_of(task: Task) -> str | None:
    """Return the run whose adapter an evaluation loads; None for the base model, a merged adapter, and other tasks."""
    request = task.request
    if not isinstance(request, EvaluateRequest) or request.merged or request.run == BASE_RUN:
        return None
    return request.run


def under_of(task: Task) -> str | None:
    """Return the recipe that a server serves the base under, or an evaluation scores on; None for all other tasks."""
    request = task.request
    return request.under if isinstance(request, ServeRequest | EvaluateRequest) else None


def way_of_serving(under: str | None, *, merged: bool = False) -> str:
    """Describe how an adapter is served, for messages; empty for the base as published."""
    if merged:
        return "served merged" if under is None else f"served merged under {under}"
    return "" if under is None else f"served under {under}"


def is_merged(task: Task) -> bool:
    """Whether a server has an adapter merged into its base, or an evaluation scores on such a server."""
    request = task.request
    return bool(request.merged) if isinstance(request, ServeRequest | EvaluateRequest) else False


def task_name(*parts: str, identity: str) -> str:
    """Name a task ``part-part-…-hash``, at most :data:`MAX_NAME` characters.

    Args:
        parts: Describe the task; cut off at the end if too long.
        identity: Further distinctions (the spec's hash, the store); hashed together with the parts.
    """
    title = "-".join(parts)
    digest = hashlib.sha256(f"{title}/{identity}".encode()).hexdigest()[:8]
    return f"{title[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"
