"""The unit of work that a runtime runs, and what can be seen of it."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from surogate_bench.contract import Service
from surogate_bench.progress import Progress
from surogate_bench.requests import AnyRequest, CheckRequest, EvaluateRequest

MAX_NAME = 63
"""Longest DNS label (RFC 1123): task names become names of Kubernetes objects and their label values."""

TaskRequest = AnyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to run: once until it ends, or, for a server, until it is deleted."""

    name: str
    """Deterministic, unique, a DNS label: submitting it twice runs it once."""
    service: Service
    request: TaskRequest
    """Ports, thread counts and the address of the server are filled in by whoever knows them."""
    slots: int
    """Accelerators (or shares of the CPU) that it holds while it is pending or running."""
    max_attempts: int
    """Tries until it has failed; for a server, tries in a row that did not become ready."""
    timeout_s: float
    """Seconds from submission, over all attempts, until it is stopped; for a server, seconds to become ready."""
    output: str | None
    """Prefix in the store whose manifest says that it is done; None for a server."""

    @property
    def is_server(self) -> bool:
        """Whether it runs until deleted."""
        return self.output is None


class Phase(StrEnum):
    """What a runtime says of a task."""

    ABSENT = "absent"  # the runtime knows nothing of it: never submitted, deleted, or lost
    PENDING = "pending"  # waits for its first or next attempt; a server: not ready yet
    RUNNING = "running"  # a server: ready
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # for good: no attempt is left

    @property
    def is_active(self) -> bool:
        """Whether it holds its slots, or is queued for them."""
        return self in {Phase.PENDING, Phase.RUNNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A task as a runtime sees it at one moment."""

    phase: Phase
    attempt: int = 0
    """1 for the first."""
    reason: str = ""
    """CamelCase kind of the last failure: the service's own word for it, or Killed, DeadlineExceeded…"""
    message: str = ""
    progress: Progress | None = None
    elapsed_s: float | None = None
    """Seconds since submission; for one that ended, until then."""
    queued: bool = False
    """It is pending and holds no slot now, whether or not it is known yet that there is no room for it."""
    unplaced: bool = False
    """It is pending because there is no room for it, and holds no slot."""


ABSENT = Observation(phase=Phase.ABSENT)


def stage_of(task: Task) -> str:
    """Name the stage that a task is of, as labels and logs do."""
    if isinstance(task.request, CheckRequest):
        return f"check-{task.request.subject}"
    return "eval" if isinstance(task.request, EvaluateRequest) else task.request.kind


def task_name(*parts: str, identity: str) -> str:
    """Name a task ``part-part-…-hash``, at most :data:`MAX_NAME` characters.

    Args:
        parts: What it is, in words; the end is cut off when too long.
        identity: What else tells it apart (the spec's hash, the store); hashed together with the parts.
    """
    words = "-".join(parts)
    digest = hashlib.sha256(f"{words}/{identity}".encode()).hexdigest()[:8]
    return f"{words[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"
