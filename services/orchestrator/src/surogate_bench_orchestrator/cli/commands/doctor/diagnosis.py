"""The diagnosis of a machine: pure functions of facts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from surogate_bench.machine.checks import NO_GPU, CheckReport, Outcome, engine_check_name
from surogate_bench.machine.packages import PACKAGES
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.engines import AUTO
from surogate_bench_orchestrator.cli.commands.doctor.facts import Facts
from surogate_bench_orchestrator.report.text.formats import size
from surogate_bench_orchestrator.runtimes.local.capabilities import capability

MIN_MEMORY_BYTES = 2 * 2**30
"""Memory of a trainer or vLLM on a CPU."""
REQUIRED_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "vLLM", "lm-eval")
"""Packages of each of which one distribution must be installed."""
_INSTALL = "Build the environment again: make env."


class Level(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"  # a sweep can run, but not every one
    PROBLEM = "problem"  # no sweep can run, or not the one given


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One statement about the machine."""

    subject: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFinding:
    """How a recipe runs here."""

    recipe: str
    engine: str | None
    """None if no engine can run it."""
    note: str
    """What the engine does, or why there is none."""
    codes: str
    """Whether the engine's products are those of the oracle: ``equal``, ``differ`` or ``not checked``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings."""

    findings: tuple[Finding, ...]
    recipes: tuple[RecipeFinding, ...]

    @property
    def can_run(self) -> bool:
        """Whether a sweep can run."""
        return not any(finding.level is Level.PROBLEM for finding in self.findings)


def diagnose(
    facts: Facts, recipes: Sequence[Recipe], *, min_free_bytes: int, engine: str = AUTO, more: Sequence[Finding] = ()
) -> Diagnosis:
    """Diagnose a machine.

    Args:
        facts: What it has.
        recipes: Recipes that are to run.
        min_free_bytes: Free disk space that a sweep needs.
        engine: Engine that the sweep requests.
        more: Findings about one sweep.
    """
    found = tuple(_recipe(recipe, facts, engine) for recipe in recipes)
    return Diagnosis(
        findings=(
            _gpu(facts),
            _engines(facts),
            _runnable(found),
            *_packages(facts),
            _memory(facts),
            *_disks(facts, min_free_bytes),
            Finding(subject="hub", level=Level.OK if facts.hub.reachable else Level.NOTE, text=facts.hub.text),
            *more,
        ),
        recipes=found,
    )


def _recipe(recipe: Recipe, facts: Facts, engine: str) -> RecipeFinding:
    here = capability(recipe, facts.machine, engine)
    codes = "not checked"
    if here.engine is not None and facts.engines.report is not None:
        codes = _codes(facts.engines.report, engine_check_name(recipe.name, here.engine))
    return RecipeFinding(recipe=recipe.name, engine=here.engine, note=here.note, codes=codes)


def _codes(report: CheckReport, name: str) -> str:
    outcomes = {check.outcome for check in report.checks if check.name == name}
    if Outcome.FAILED in outcomes:
        return "differ"
    return "equal" if Outcome.PASSED in outcomes else "not checked"


def _runnable(recipes: Sequence[RecipeFinding]) -> Finding:
    missing = [f"{each.recipe} ({each.note})" for each in recipes if each.engine is None]
    if not missing:
        return Finding(subject="recipes", level=Level.OK, text=f"all {len(recipes)} can run here")
    level = Level.NOTE if len(missing) < len(recipes) else Level.PROBLEM
    return Finding(
        subject="recipes",
        level=level,
        text=f"cannot run here: {'; '.join(missing)}",
        remedy="Use engine: auto, install what is missing, or leave these recipes out.",
    )


def _gpu(facts: Facts) -> Finding:
    device = facts.engines.report.device if facts.engines.report else None
    torch_version = facts.versions.get("torch", "")
    listed = ", ".join(gpu.name or gpu.id for gpu in facts.listed_gpus)
    if device is not None and device.is_gpu and device.compute_capability is not None:
        major, minor = device.compute_capability
        text = (
            f"{len(facts.machine.gpus)} × {device.name}: compute capability {major}.{minor}, "
            f"{size(device.memory_bytes)}, driver {device.driver}, torch built for CUDA {device.cuda}"
        )
        return Finding(subject="GPU", level=Level.OK, text=text)
    if torch_version.endswith("+cpu"):
        if not listed:
            return Finding(
                subject="GPU", level=Level.OK, text="none; this is a CPU environment, which trains on the CPU"
            )
        return Finding(
            subject="GPU",
            level=Level.NOTE,
            text=f"{listed} is not used: torch {torch_version} is a CPU build",
            remedy="make clean && make env ACCELERATOR=cuda",
        )
    problem = (device.problem if device else None) or NO_GPU
    return Finding(
        subject="GPU",
        level=Level.PROBLEM,
        text=f"a CUDA build is installed, but {problem}{f' (nvidia-smi lists {listed})' if listed else ''}",
        remedy="Update the NVIDIA driver to one for this CUDA version, or build the CPU environment: "
        "make clean && make env ACCELERATOR=cpu",
    )


def _engines(facts: Facts) -> Finding:
    report, failure = facts.engines.report, facts.engines.failure
    failed = [check for check in report.checks if check.outcome is Outcome.FAILED] if report else []
    if failed:
        text = "; ".join(f"{check.name}: {check.reason}" for check in failed)
        return Finding(
            subject="engines",
            level=Level.PROBLEM,
            text=f"{len(failed)} differ from the oracle: {text}",
            remedy="Results would be wrong. Please report it with the output of doctor --json.",
        )
    if report is None or failure:
        return Finding(
            subject="engines",
            level=Level.PROBLEM,
            text=f"the trainer could not check them: {failure}",
            remedy=_INSTALL,
        )
    passed = report.count(Outcome.PASSED)
    return Finding(
        subject="engines",
        level=Level.OK,
        text=f"{passed} number formats and engines give the oracle's numbers on {report.device.name} ({report.oracle})",
    )


def _packages(facts: Facts) -> Iterator[Finding]:
    for name in REQUIRED_PACKAGES:
        found = [f"{each} {facts.versions[each]}" for each in PACKAGES[name] if each in facts.versions]
        if found:
            yield Finding(subject=name, level=Level.OK, text=", ".join(found))
        else:
            yield Finding(subject=name, level=Level.PROBLEM, text="is not installed", remedy=_INSTALL)


def _memory(facts: Facts) -> Finding:
    total = facts.machine.memory_bytes
    text = f"{size(total)}, of which {size(facts.available_bytes)} are free; {facts.machine.cores} cores"
    if total < MIN_MEMORY_BYTES:
        remedy = "Use a machine or container with more memory."
        return Finding(subject="memory", level=Level.PROBLEM, text=f"{text}; 2 GiB are needed", remedy=remedy)
    return Finding(subject="memory", level=Level.OK, text=text)


def _disks(facts: Facts, needed: int) -> Iterator[Finding]:
    for name, free in facts.free_disk.items():
        enough = free >= needed
        yield Finding(
            subject=f"disk of {name}",
            level=Level.OK if enough else Level.PROBLEM,
            text=f"{size(free)} free" if enough else f"{size(free)} free, but a sweep needs {size(needed)}",
            remedy="" if enough else f"Free some space, or choose another folder as --{name}.",
        )
