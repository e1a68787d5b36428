"""What this machine has, gathered without torch."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from surogate_bench.contract import HUB_ENDPOINT_VARIABLE
from surogate_bench.errors import ConfigError
from surogate_bench.inputs.hub_environment import HUB_ADDRESS, OFFLINE_SWITCHES
from surogate_bench.machine.hardware import Hardware, describe_machine, package_versions
from surogate_bench.variables import is_on, require_address
from surogate_bench_orchestrator.cli.commands.doctor.engine_check import EngineCheck
from surogate_bench_orchestrator.runtimes.local.machine import Gpu, Machine, detect_machine, query_gpus

_HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Whether the hub can be reached."""

    reachable: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that a diagnosis is based on."""

    machine: Machine
    """Cores, memory and the GPUs that torch may use."""
    listed_gpus: tuple[Gpu, ...]
    """GPUs that nvidia-smi lists, also those that torch cannot use."""
    hardware: Hardware
    available_bytes: int
    """Memory that is free now."""
    versions: Mapping[str, str]
    """Versions of installed packages."""
    free_disk: Mapping[str, int]
    """Free bytes of the disk of each folder that is written."""
    hub: Hub
    engines: EngineCheck


def gather_facts(folders: Mapping[str, Path], engines: EngineCheck) -> Facts:
    """Gather the facts of this machine.

    Args:
        folders: Folders that a sweep writes, by option; they need not exist.
        engines: Result of the trainer's process.
    """
    return Facts(
        machine=detect_machine(),
        listed_gpus=query_gpus(),
        hardware=describe_machine(),
        available_bytes=psutil.virtual_memory().available,
        versions=package_versions(),
        free_disk={name: _free(folder) for name, folder in folders.items()},
        hub=find_hub(os.environ),
        engines=engines,
    )


def find_hub(environment: Mapping[str, str]) -> Hub:
    """Ask the hub for a response, unless a variable forbids it."""
    switch = next((name for name in OFFLINE_SWITCHES if is_on(environment.get(name))), None)
    if switch is not None:
        return Hub(reachable=False, text=f"offline, as {switch} is set")
    address = environment.get(HUB_ENDPOINT_VARIABLE, HUB_ADDRESS)
    try:
        require_address(HUB_ENDPOINT_VARIABLE, address, example=HUB_ADDRESS)
        httpx.head(address, timeout=_HUB_TIMEOUT_S)
    except ConfigError as error:
        return Hub(reachable=False, text=str(error))
    except (httpx.HTTPError, OSError, ValueError) as error:
        return Hub(reachable=False, text=f"{address} cannot be reached ({type(error).__name__})")
    return Hub(reachable=True, text=f"{address} responds")


def _free(folder: Path) -> int:
    absolute = Path.cwd() / folder
    return shutil.disk_usage(next(parent for parent in (absolute, *absolute.parents) if parent.exists())).free
