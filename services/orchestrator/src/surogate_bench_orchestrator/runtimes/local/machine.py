"""Detect cores, memory and GPUs without importing torch, and share them among tasks."""

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

import psutil

from surogate_bench.contract import GPUS_VARIABLE
from surogate_bench.machine.nvidia_smi import query_nvidia_smi

_CGROUP = Path("/sys/fs/cgroup")
_GPU_FIELDS = ("index", "compute_cap", "name")
_NVIDIA_PROC = Path("/proc/driver/nvidia/gpus")
_MEMORY_PER_SLOT = 2 * 1024**3
"""Minimum memory of a trainer or vLLM on a CPU, in bytes."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU; ``id`` is its name in CUDA_VISIBLE_DEVICES, the rest is None if nvidia-smi is missing."""

    id: str
    name: str | None = None
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores and memory (bytes) that this process may use, and its GPUs."""

    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class Allotment:
    """How the tasks of a sweep share a machine."""

    slots: int
    side_by_side: int
    """Maximum number of trainers that run at once."""
    threads: int
    """Number of CPU threads of each trainer, over all its processes."""
    devices: tuple[str, ...] = ()
    """Value of CUDA_VISIBLE_DEVICES for each slot; empty on a CPU."""


def allot(machine: Machine, *, trainers: int, gpus: int = 1, limit: int | None = None) -> Allotment:
    """Share a machine: a slot is a GPU, or on a CPU one core or more; one slot is for the server.

    Thread counts depend only on sweep and machine, never on what is left to do: they may change the order of
    floating-point sums, and with it the trained bytes.

    Args:
        machine: The machine.
        trainers: Number of training runs of the whole sweep.
        gpus: Slots of each trainer.
        limit: Maximum number of slots; 1 measures the speed of each trainer alone.
    """
    if machine.gpus:
        slots = len(machine.gpus)
    else:
        slots = max(1, min(machine.cores, trainers * gpus + 1, machine.memory_bytes // _MEMORY_PER_SLOT))
    if limit is not None:
        slots = min(slots, limit)
    side_by_side = max(1, min(slots // gpus, trainers))
    return Allotment(
        slots=slots,
        side_by_side=side_by_side,
        threads=max(1, machine.cores // side_by_side),
        devices=tuple(gpu.id for gpu in machine.gpus[:slots]),
    )


def detect_machine() -> Machine:
    """Detect cores, memory and GPUs within the limits of the container (cgroup v2)."""
    memory = psutil.virtual_memory().total
    if limit := _read_fields(_CGROUP / "memory.max"):
        memory = memory if limit[0] == "max" else min(memory, int(limit[0]))
    cores = len(os.sched_getaffinity(0))
    if quota := _read_fields(_CGROUP / "cpu.max"):
        cores = cores if quota[0] == "max" else max(1, min(cores, ceil(int(quota[0]) / int(quota[1]))))
    return Machine(cores=cores, memory_bytes=memory, gpus=_detect_gpus() if _torch_may_use_cuda() else ())


def _torch_may_use_cuda() -> bool:
    """Return whether torch is a CUDA build: CPU builds have the local version label ``+cpu``."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def _detect_gpus() -> tuple[Gpu, ...]:
    gpus = query_gpus()
    if not gpus and _NVIDIA_PROC.is_dir():
        gpus = tuple(Gpu(str(index)) for index, _ in enumerate(_NVIDIA_PROC.iterdir()))
    visible = os.environ.get(GPUS_VARIABLE)
    if visible is None:
        return gpus
    known = {gpu.id: gpu for gpu in gpus}
    return tuple(known.get(name, Gpu(name)) for name in visible.split(",") if name.strip() not in {"", "-1"})


def query_gpus() -> tuple[Gpu, ...]:
    """List the GPUs that nvidia-smi reports, whether or not torch can use them; empty without nvidia-smi."""
    separators = len(_GPU_FIELDS) - 1
    return tuple(parse_gpu(line) for line in query_nvidia_smi(*_GPU_FIELDS) if line.count(",") >= separators)


def parse_gpu(line: str) -> Gpu:
    """Parse a line of ``nvidia-smi --query-gpu=index,compute_cap,name --format=csv,noheader``."""
    index, capability, name = (part.strip() for part in line.split(",", maxsplit=2))
    major, _, minor = capability.partition(".")
    return Gpu(index, name, (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None)


def _read_fields(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
