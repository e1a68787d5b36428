"""Machines and versions that stages ran with, from their manifests."""

from collections.abc import Sequence

from surogate_bench.manifest import Hardware, Manifest
from surogate_bench.results import EvalResult
from surogate_bench_orchestrator.report.model.summary import Machine
from surogate_bench_orchestrator.report.text.formats import size


def machines(manifests: Sequence[Manifest]) -> tuple[Machine, ...]:
    """Return each kind of machine once, with the stages that ran on it."""
    details: dict[str, Hardware] = {}
    stages: dict[str, list[str]] = {}
    for manifest in manifests:
        description = describe_machine(manifest.hardware)
        details.setdefault(description, manifest.hardware)
        stages.setdefault(description, []).append(_label(manifest))
    return tuple(
        Machine(description=description, details=details[description], runs=tuple(stages[description]))
        for description in details
    )


def _label(manifest: Manifest) -> str:
    if manifest.run in {"", manifest.stage}:
        return manifest.stage
    result = manifest.result
    under = result.served_under if isinstance(result, EvalResult) else None
    return f"{manifest.run} {manifest.stage}" + (f" under {under}" if under else "")


def describe_machine(hardware: Hardware) -> str:
    """Describe a machine: accelerator, CPU, cores and memory."""
    parts = [
        hardware.gpu or "",
        hardware.cpu or "unknown CPU",
        "" if hardware.cores is None else f"{hardware.cores} cores",
        "" if hardware.memory_bytes is None else f"{size(hardware.memory_bytes)} memory",
    ]
    return ", ".join(part for part in parts if part)


def versions(manifests: Sequence[Manifest]) -> dict[str, str]:
    """Return the version of every package; where stages differ, all of them."""
    found: dict[str, list[str]] = {}
    for manifest in manifests:
        for package, version in manifest.versions.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: " and ".join(found[package]) for package in sorted(found)}
