"""The origin of results: which were reused, and whether compared stages ran under equal conditions."""

from collections.abc import Mapping, Sequence

from surogate_bench.layout import sweep_of
from surogate_bench.machine.hardware import Hardware
from surogate_bench.machine.packages import version_in
from surogate_bench.specs import RecipeSweep
from surogate_bench.stages.manifest import Manifest
from surogate_bench_orchestrator.report.analysis.provenance import describe_machine
from surogate_bench_orchestrator.report.analysis.records import RunRecord, SweepRecords
from surogate_bench_orchestrator.report.text.formats import listed, seeds

_PACKAGES: Mapping[str, Sequence[str]] = {
    "training": ("surogate-bench", "torch", "transformers", "peft", "bitsandbytes", "transformer-engine"),
    "evaluation": ("surogate-bench", "vLLM", "torch", "transformers", "lm-eval"),
}
"""What can change the results of a stage."""


def reused_from(runs: Sequence[RunRecord]) -> str:
    """Return the sweep that a row's run, or each of its stages, was reused from; empty for none or several runs."""
    if len(runs) != 1:
        return ""
    stages = runs[0].stages()
    sources = {key.label: sweep_of(found.reused_from) for key, found in stages.items() if found.reused_from}
    if len(sources) == len(stages) and len(set(sources.values())) == 1:
        return next(iter(sources.values()))
    return "; ".join(f"{stage} {source}" for stage, source in sources.items())


def reuse_notes(records: SweepRecords, sweep: RecipeSweep) -> list[str]:
    """Name what was not computed in this sweep; one note for each sweep that it was taken from."""
    found: dict[str, dict[str, list[RunRecord]]] = {}
    for run in records.every_run():
        labels: dict[str, list[str]] = {}
        for key, manifest in run.stages().items():
            if manifest.reused_from:
                labels.setdefault(sweep_of(manifest.reused_from), []).append(key.label)
        for source, names in labels.items():
            found.setdefault(source, {}).setdefault(" and ".join(names), []).append(run)
    return [
        f"Not computed again but taken from {source}: "
        f"{'; '.join(f'{labels} of {_named(runs, sweep)}' for labels, runs in stages.items())}."
        for source, stages in found.items()
    ]


def made_unlike_note(records: SweepRecords, sweep: RecipeSweep) -> str:
    """Return how versions, engines and machines of compared stages differ; empty where they do not.

    Speed and memory are never claimed to be comparable between training runs that were not computed in the same way.
    """
    of_kinds = {kind: _differing(kind, records.every_run(), sweep) for kind in _PACKAGES}
    engines = [found for recipe in sweep.recipes if (found := _engines(records.of_recipe(recipe.name), sweep))]
    parts = [f"{kind} with {', '.join(differing)}" for kind, differing in of_kinds.items() if differing]
    parts += [f"training with {found}" for found in engines]
    if not parts:
        return ""
    speeds = "" if not (of_kinds["training"] or engines) else " Speed and memory of these runs are not comparable."
    return (
        "Not all stages that are compared were computed in the same way, which may explain part of their differences: "
        f"{'; '.join(parts)}.{speeds}"
    )


def _differing(kind: str, runs: Sequence[RunRecord], sweep: RecipeSweep) -> list[str]:
    made = [(run, manifest) for run in runs for key, manifest in run.stages().items() if key.kind == kind]
    found = [
        _values(name, [(run, version_in(manifest.versions, name) or "") for run, manifest in made], sweep)
        for name in _PACKAGES[kind]
    ]
    found += [
        _values("procedure version", [(run, str(each.procedure_version)) for run, each in made], sweep),
        _values("machine", [(run, _machine(each)) for run, each in made], sweep),
    ]
    return [text for text in found if text]


def _engines(runs: Sequence[RunRecord], sweep: RecipeSweep) -> str:
    """Return how the engines of one recipe's seeds differ; different recipes may need different engines."""
    by_run = [(run, (run.train.manifest.engine or "") if run.train is not None else "") for run in runs]
    return _values("engine", by_run, sweep, others="its other seeds")


def _values(
    name: str, by_run: Sequence[tuple[RunRecord, str]], sweep: RecipeSweep, *, others: str = "the others"
) -> str:
    """Format the values with their runs, the most frequent last; empty where all are equal or unknown."""
    runs: dict[str, list[RunRecord]] = {}
    for run, value in by_run:
        if value:
            runs.setdefault(value, []).append(run)
    if len(runs) < 2:  # noqa: PLR2004 - a difference takes two
        return ""
    *fewer, most = sorted(runs, key=lambda value: len(runs[value]))
    parts = [f"{value} for {_named(runs[value], sweep)}" for value in fewer]
    return f"{name} {', '.join(parts)} and {most} for {others}"


def _machine(manifest: Manifest) -> str:
    return describe_machine(manifest.hardware) if manifest.hardware != Hardware() else ""


def _named(runs: Sequence[RunRecord], sweep: RecipeSweep) -> str:
    """Format runs in a sentence: the base model, FP8 and FP4 (seeds 0 and 1)."""
    titles = {each.name: each.title for each in sweep.trained}
    of_recipe: dict[str, dict[int, None]] = {}
    for run in runs:
        if run.recipe is not None and run.seed is not None:
            of_recipe.setdefault(run.recipe, {})[run.seed] = None
    of_seeds: dict[tuple[int, ...], list[str]] = {}
    for recipe, numbers in of_recipe.items():
        of_seeds.setdefault(tuple(numbers), []).append(titles[recipe])
    base = ["the base model"] if any(run.recipe is None and run.adapter is None for run in runs) else []
    foreign = [run.name for run in runs if run.adapter is not None]
    return listed([*base, *(f"{listed(names)} ({seeds(numbers)})" for numbers, names in of_seeds.items()), *foreign])
