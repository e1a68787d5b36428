"""Machines and versions that stages ran with, from their manifests."""

from collections.abc import Iterator, Sequence

from surogate_bench.machine.hardware import Hardware
from surogate_bench.stages.manifest import Manifest
from surogate_bench_orchestrator.report.analysis.records import SweepRecords
from surogate_bench_orchestrator.report.model.summary import Machine
from surogate_bench_orchestrator.report.text.formats import size


def machines(records: SweepRecords) -> tuple[Machine, ...]:
    """Return each kind of machine once, with the stages that ran on it."""
    details: dict[str, Hardware] = {}
    stages: dict[str, list[str]] = {}
    for label, manifest in _labelled(records):
        description = describe_machine(manifest.hardware)
        details.setdefault(description, manifest.hardware)
        stages.setdefault(description, []).append(label)
    return tuple(
        Machine(description=description, details=details[description], runs=tuple(stages[description]))
        for description in details
    )


def _labelled(records: SweepRecords) -> Iterator[tuple[str, Manifest]]:
    if records.prepare is not None:
        yield "prepare", records.prepare[0]
    for run in records.every_run():
        for key, manifest in run.stages().items():
            yield f"{run.name} {key.called(manifest.stage)}", manifest


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
