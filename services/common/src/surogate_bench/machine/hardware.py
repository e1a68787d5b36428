"""The machine and the package versions of this process, recorded in every manifest."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

from surogate_bench.machine.packages import PACKAGES


def _is_none(value: object) -> bool:
    return value is None


class Hardware(BaseModel):
    """The machine that ran a stage. Unknown values are left out of the JSON; keys of other versions are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    cpu: str | None = Field(None, exclude_if=_is_none)
    cores: int | None = Field(None, exclude_if=_is_none)
    """Cores that the process may use."""
    memory_bytes: int | None = Field(None, exclude_if=_is_none)
    system: str | None = Field(None, exclude_if=_is_none)
    python: str | None = Field(None, exclude_if=_is_none)
    gpu: str | None = Field(None, exclude_if=_is_none)
    """The GPU of a training run; None on a CPU."""


def describe_machine(gpu: str | None = None) -> Hardware:
    """Describe this machine: CPU model, usable cores, memory and operating system.

    Args:
        gpu: Name of the GPU in use.
    """
    return Hardware(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(terse=True),
        python=platform.python_version(),
        gpu=gpu,
    )


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change results."""
    found = {}
    for distribution in chain.from_iterable(PACKAGES.values()):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
