"""``surogate-bench logs``: which stages are meant, and how their logs are shown."""

from rich.console import Console

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.layout import BASE_RUN, run_name
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.cli.session import Session
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.tasks import Task, stage_of

SERVICE_STAGES = {
    "prepare": "prepare", "task-check": "check-task", "serving-check": "check-serving", "model-server": "serve",
}  # fmt: skip
"""What the runs share, which can be named instead of a run."""


def stages_of(sweep: RecipeSweep, run: str, stage: str | None) -> tuple[str, ...]:
    """Tell which stages are meant.

    Args:
        sweep: Of which sweep.
        run: A run, or a key of :data:`SERVICE_STAGES`.
        stage: ``train`` or ``eval``; all that there are if None.

    Raises:
        ConfigError: there is no such run, or it has no such stage.
    """
    if run in SERVICE_STAGES:
        return (SERVICE_STAGES[run],)
    runs = [BASE_RUN] if sweep.evaluation.evaluate_base else []
    runs += [run_name(recipe.name, seed) for recipe in sweep.recipes for seed in sweep.seeds]
    if run not in runs:
        raise ConfigError(
            "there is no such run", field="run", value=run, remedy=f"Use one of {', '.join((*runs, *SERVICE_STAGES))}."
        )
    there = ("eval",) if run == BASE_RUN else ("train", "eval")
    if stage is not None and stage not in there:
        raise ConfigError("is never trained", field="run", value=run, remedy="Leave --stage out.")
    return (stage,) if stage else there


def show_local_logs(session: Session, run: str, *, stage: str | None, tail: int, output: Console) -> None:
    """Show what the tasks of a run wrote on this machine, over all attempts.

    Raises:
        ConfigError: there is no such run.
        PermanentError: it has written nothing.
    """
    runtime = session.local_runtime()
    stages = stages_of(session.sweep, run, stage)
    tasks = {each: task for each in stages if (task := _task(session.plan, run, each))}
    texts = {each: runtime.logs(task.name, tail=tail) for each, task in tasks.items()}
    if not any(texts.values()):
        raise PermanentError(f"there is no log of {run} in {session.state}: it has not started here")
    for each, text in texts.items():
        if text:
            show_log(f"{run} ({each})", text, output)


def show_log(title: str, text: str, output: Console) -> None:
    """Show one log under its title."""
    output.out(f"==> {title} <==", highlight=False)
    output.out(text.rstrip("\n"), highlight=False)


def _task(plan: Plan, run: str, stage: str) -> Task | None:
    if stage == "prepare":
        return plan.prepare
    if stage.startswith("check-"):
        return next((check for check in plan.checks if stage_of(check) == stage), None)
    if stage == "serve":
        return plan.server
    found = next(each for each in plan.runs if each.name == run)
    return found.train if stage == "train" and found.train else found.evaluate
