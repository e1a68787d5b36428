"""Build the summary of a sweep from what its stages left in the object store, and from nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from surogate_bench.manifest import Manifest
from surogate_bench.recipes import Recipe
from surogate_bench.specs import RecipeSweep
from surogate_bench.store import ObjectStore
from surogate_bench_orchestrator.report.formats import plural, size
from surogate_bench_orchestrator.report.notes import footnotes, notes
from surogate_bench_orchestrator.report.recipe_words import recipe_text
from surogate_bench_orchestrator.report.records import SweepRecords, read_records
from surogate_bench_orchestrator.report.rows import Troubles, build_rows
from surogate_bench_orchestrator.report.summary import DataDigest, Machine, Row, Summary
from surogate_bench_orchestrator.report.words import headline


def build_summary(
    store: ObjectStore,
    sweep: RecipeSweep,
    failures: Mapping[str, str],
    skipped: Mapping[str, str] | None = None,
) -> Summary:
    """Summarize a sweep, finished or not. The same store gives the same summary.

    Args:
        store: Holds the finished stages.
        sweep: What was asked for.
        failures: Why runs failed, by run name (``fp8-s0``, ``base``). A run whose results are in the store succeeded,
            whatever is said here.
        skipped: Why runs were not tried, by run name.

    Raises:
        TransientError: the store is away.
        PermanentError: the store refuses, or the prepare stage's manifest cannot be understood.
    """
    return summarize(read_records(store, sweep), sweep, Troubles(failed=failures, skipped=skipped or {}))


def summarize(records: SweepRecords, sweep: RecipeSweep, troubles: Troubles) -> Summary:
    """Summarize records that were read already; pure."""
    reference = _reference(sweep.recipes)
    rows = build_rows(records, sweep, troubles, reference.name if reference else None)
    manifests = records.manifests()
    prepared = records.prepare[1] if records.prepare else None
    warnings = prepared.warnings if prepared else ()
    return Summary(
        name=sweep.name,
        spec_hash=sweep.spec_hash,
        description=sweep.description,
        date=max((manifest.created for manifest in manifests), default=None),
        headline=headline(sweep, rows.over_seeds, reference.name if reference else None, sweep.data.label),
        model=sweep.model.label,
        model_source=prepared.model_source if prepared else "",
        data=sweep.data.label,
        splits=tuple(
            DataDigest(split=split, records=info.records, sha256=info.sha256)
            for split, info in (prepared.data.items() if prepared else ())
        ),
        task=sweep.evaluation.task,
        task_data=_task_data(sweep),
        evaluated_on=_evaluated_on(sweep, rows.over_seeds),
        machines=_machines(manifests),
        versions=_versions(manifests),
        reference=reference.name if reference else None,
        reference_title=reference.title if reference else None,
        seeds=sweep.seeds,
        rows=rows.over_seeds,
        runs=rows.per_run,
        recipes=tuple(recipe_text(recipe) for recipe in sweep.recipes),
        footnotes=footnotes(
            rows.over_seeds, next((row for row in rows.over_seeds if reference and row.recipe == reference.name), None)
        ),
        notes=(*warnings, *notes(sweep, rows.over_seeds, rows.not_compared)),
        warnings=warnings,
    )


def _reference(recipes: Sequence[Recipe]) -> Recipe | None:
    return next((recipe for recipe in recipes if not recipe.quantizes), None)


def _task_data(sweep: RecipeSweep) -> str:
    """Where the questions of the task come from: two tasks of the same name and size may ask different ones."""
    data = sweep.data
    parts = [
        data.label,
        f"configuration {data.config}" if data.config else "",
        f"revision {data.revision}" if data.revision else "",
    ]
    return ", ".join(part for part in parts if part)


def _evaluated_on(sweep: RecipeSweep, rows: Sequence[Row]) -> str:
    counts = sorted({row.score.samples for row in rows if row.score})
    asked = f"{' or '.join(f'{count:,}' for count in counts)} test questions" if counts else "test questions"
    shots = sweep.evaluation.num_fewshot
    shown = f", {shots} solved {plural('example', shots)} before each" if shots else ""
    return f"Task {sweep.evaluation.task}: {asked} of {_task_data(sweep)}{shown}; accuracy is strict exact match."


def _machines(manifests: Sequence[Manifest]) -> tuple[Machine, ...]:
    details: dict[str, dict[str, Any]] = {}
    stages: dict[str, list[str]] = {}
    for manifest in manifests:
        description = _describe(manifest.hardware)
        details.setdefault(description, manifest.hardware)
        label = manifest.stage if manifest.run in {"", manifest.stage} else f"{manifest.run} {manifest.stage}"
        stages.setdefault(description, []).append(label)
    return tuple(
        Machine(description=description, details=details[description], runs=tuple(stages[description]))
        for description in details
    )


def _describe(hardware: Mapping[str, Any]) -> str:
    accelerator = hardware.get("gpu")
    parts = [
        str(accelerator) if accelerator else "",
        str(hardware.get("cpu") or "unknown CPU"),
        f"{hardware['cores']} cores" if "cores" in hardware else "",
        f"{size(hardware['memory_bytes'])} memory" if isinstance(hardware.get("memory_bytes"), int) else "",
    ]
    return ", ".join(part for part in parts if part)


def _versions(manifests: Sequence[Manifest]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for manifest in manifests:
        for package, version in manifest.versions.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: " and ".join(found[package]) for package in sorted(found)}
