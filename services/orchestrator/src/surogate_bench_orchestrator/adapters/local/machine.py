"""What this machine offers, found without importing torch, and how tasks share it."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA_PROC = Path("/proc/driver/nvidia/gpus")
_NVIDIA_SMI_TIMEOUT_S = 20.0
_MEMORY_PER_SLOT = 2 * 1024**3
"""Bytes that a trainer or vLLM needs at least on a CPU."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU, by what CUDA_VISIBLE_DEVICES calls it; the rest is None where nvidia-smi is missing."""

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
    """Trainers that may run at once."""
    threads: int
    """CPU threads of each trainer."""
    devices: tuple[str, ...] = ()
    """CUDA_VISIBLE_DEVICES of each slot; empty on a CPU."""


def allot(machine: Machine, *, trainers: int, limit: int | None = None) -> Allotment:
    """Share a machine: one GPU a slot, or on a CPU one core or more a slot and one slot for the server.

    Thread counts depend on the sweep and the machine only, never on what is left to do, because they may change the
    order of floating-point sums and with it the trained bytes.

    Args:
        machine: What there is.
        trainers: Training runs of the whole sweep.
        limit: At most so many slots; 1 measures the speed of each trainer alone.
    """
    if machine.gpus:
        slots = len(machine.gpus)
    else:
        slots = max(1, min(machine.cores, trainers + 1, machine.memory_bytes // _MEMORY_PER_SLOT))
    if limit is not None:
        slots = min(slots, limit)
    side_by_side = min(slots, trainers)
    return Allotment(
        slots=slots,
        side_by_side=side_by_side,
        threads=max(1, machine.cores // side_by_side),
        devices=tuple(gpu.id for gpu in machine.gpus[:slots]),
    )


def detect_machine() -> Machine:
    """Look at this machine; limits of a container (cgroup v2) count."""
    memory = psutil.virtual_memory().total
    if limit := _read_words(_CGROUP / "memory.max"):
        memory = memory if limit[0] == "max" else min(memory, int(limit[0]))
    cores = len(os.sched_getaffinity(0))
    if quota := _read_words(_CGROUP / "cpu.max"):
        cores = cores if quota[0] == "max" else max(1, min(cores, ceil(int(quota[0]) / int(quota[1]))))
    return Machine(cores=cores, memory_bytes=memory, gpus=_detect_gpus() if _torch_may_use_cuda() else ())


def _torch_may_use_cuda() -> bool:
    """Tell by the local version label that CPU builds of torch carry."""
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def _detect_gpus() -> tuple[Gpu, ...]:
    gpus = _ask_nvidia_smi()
    if not gpus and _NVIDIA_PROC.is_dir():
        gpus = tuple(Gpu(str(index)) for index, _ in enumerate(_NVIDIA_PROC.iterdir()))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    known = {gpu.id: gpu for gpu in gpus}
    return tuple(known.get(name, Gpu(name)) for name in visible.split(",") if name.strip() not in {"", "-1"})


def _ask_nvidia_smi() -> tuple[Gpu, ...]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        answer = subprocess.run(
            [command, "--query-gpu=index,compute_cap,name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(parse_gpu(line) for line in answer.splitlines() if line.count(",") >= 2)  # noqa: PLR2004 - 3 columns


def parse_gpu(line: str) -> Gpu:
    """Read one line of ``nvidia-smi --query-gpu=index,compute_cap,name --format=csv,noheader``."""
    index, capability, name = (part.strip() for part in line.split(",", maxsplit=2))
    major, _, minor = capability.partition(".")
    return Gpu(index, name, (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None)


def _read_words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
