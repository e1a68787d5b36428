"""Build the report of a sweep from the results of its stages in the object store, and from nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from surogate_bench.recipes import Recipe
from surogate_bench.results import TrainResult
from surogate_bench.specs import RecipeSweep
from surogate_bench.store.object_store import ObjectStore
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.report.analysis.further import build_further
from surogate_bench_orchestrator.report.analysis.matrix import build_matrix
from surogate_bench_orchestrator.report.analysis.merged import build_merged
from surogate_bench_orchestrator.report.analysis.origins import made_unlike_note, reuse_notes
from surogate_bench_orchestrator.report.analysis.provenance import machines, versions
from surogate_bench_orchestrator.report.analysis.records import SweepRecords, read_records
from surogate_bench_orchestrator.report.analysis.rows import NoResultReasons, build_rows
from surogate_bench_orchestrator.report.analysis.scored_data import metrics_of, scored_on
from surogate_bench_orchestrator.report.model.summary import DataDigest, Summary
from surogate_bench_orchestrator.report.text.footnotes import detail_footnotes, main_footnotes, run_footnotes
from surogate_bench_orchestrator.report.text.headline import headline
from surogate_bench_orchestrator.report.text.notes import notes
from surogate_bench_orchestrator.report.text.recipe_texts import recipe_text
from surogate_bench_orchestrator.report.text.scored_data import (
    caption,
    chat_note,
    data_of,
    special_tokens_text,
    tokens_note,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A summary and the records that it was made of, so that writing the report reads nothing again."""

    sweep: RecipeSweep
    records: SweepRecords
    summary: Summary


def build_report(
    store: ObjectStore,
    sweep: RecipeSweep,
    failures: Mapping[str, Failure],
    skipped: Mapping[str, Failure] | None = None,
) -> Report:
    """Read a sweep, finished or not, and summarize it. The same store gives the same report.

    Args:
        store: Holds the finished stages; each of their files is read once.
        sweep: What was requested.
        failures: Why runs failed, by run name (``fp8-s0``, ``base``). A run whose results are in the store has
            succeeded nevertheless.
        skipped: Why runs were skipped, by run name.

    Raises:
        TransientError: the store is unavailable.
        PermanentError: the store refuses, or the prepare stage's manifest cannot be parsed.
    """
    records = read_records(store, sweep)
    missing = NoResultReasons(failed=failures, skipped=skipped or {})
    return Report(sweep=sweep, records=records, summary=summarize(records, sweep, missing))


def summarize(records: SweepRecords, sweep: RecipeSweep, missing: NoResultReasons) -> Summary:
    """Summarize records; pure."""
    reference = _reference(sweep.recipes)
    rows = build_rows(records, sweep, missing, reference.name if reference else None)
    matrix = build_matrix(records, sweep, rows, missing, reference.name if reference else None)
    served = matrix.served if matrix else None
    merged, not_compared_merged = build_merged(records, sweep, rows, missing)
    manifests = records.manifests()
    prepared = records.prepare[1] if records.prepare else None
    warnings = (*(prepared.warnings if prepared else ()), *_import_warnings(records))
    scored = scored_on(records.every_run(), sweep)
    metric, second_metric = metrics_of(records)
    conditions = (tokens_note(prepared, scored), chat_note(prepared, scored))
    origins = (*conditions, made_unlike_note(records, sweep), *reuse_notes(records, sweep))
    not_compared = (*rows.not_compared, *(matrix.not_compared if matrix else ()), *not_compared_merged)
    reference_row = next((row for row in rows.over_seeds if reference and row.recipe == reference.name), None)
    return Summary(
        name=sweep.name,
        spec_hash=sweep.spec_hash,
        description=sweep.description,
        date=max((manifest.created for manifest in manifests), default=None),
        headline=headline(sweep, rows.over_seeds, reference.name if reference else None, served),
        model=sweep.model.label,
        model_source=prepared.model_source if prepared else "",
        data=sweep.data.label,
        splits=tuple(
            DataDigest(split=split, records=info.records, sha256=info.sha256)
            for split, info in (prepared.data.items() if prepared else ())
        ),
        task=sweep.evaluation.task,
        task_data="; ".join(dict.fromkeys(each.source for each in scored)) or data_of(sweep),
        scored=scored,
        special_tokens=special_tokens_text(prepared, scored),
        metric=metric,
        second_metric=second_metric,
        evaluated_on=caption(sweep, scored, metric),
        machines=machines(records),
        versions=versions(manifests),
        reference=reference.name if reference else None,
        reference_title=reference.title if reference else None,
        seeds=sweep.seeds,
        rows=rows.over_seeds,
        runs=rows.per_run,
        recipes=tuple(recipe_text(recipe) for recipe in sweep.recipes),
        footnotes=main_footnotes(sweep, rows.over_seeds, reference_row, metric),
        detail_footnotes=detail_footnotes(sweep, rows.over_seeds),
        run_footnotes=run_footnotes(sweep, rows.over_seeds, rows.per_run),
        notes=(
            *warnings,
            *notes(sweep, rows.over_seeds, (*not_compared, *filter(None, origins)), served, reference=reference_row),
        ),
        warnings=warnings,
        served=served,
        merged=merged,
        further=build_further(records, sweep, missing, reference.name if reference else None),
    )


def _import_warnings(records: SweepRecords) -> Iterator[str]:
    for run in records.runs:
        made = run.imported or run.train
        if made is not None and not isinstance(made.result, TrainResult):
            yield from (f"{run.name}: {warning}" for warning in made.result.warnings)


def _reference(recipes: Sequence[Recipe]) -> Recipe | None:
    return next((recipe for recipe in recipes if not recipe.quantizes), None)
