"""Common parts of the logs commands of both targets: the stages that have logs, and the format of a log."""

from rich.console import Console

from surogate_bench.errors import ConfigError
from surogate_bench.layout import BASE_RUN, eval_stage, run_name
from surogate_bench.specs import RecipeSweep
from surogate_bench_orchestrator.domain.tasks import serve_stage

SERVICE_STAGES = {
    "prepare": "prepare", "task-check": "check-task", "serving-check": "check-serving", "model-server": "serve",
}  # fmt: skip
"""Stages that the runs of every sweep share, by the name that stands for a run."""


def service_stages(sweep: RecipeSweep) -> dict[str, str]:
    """Return the stages that the runs of a sweep share, every model server included, by the name for a run."""
    servers = {f"model-server-{under}": serve_stage(under) for under in sweep.served_under if under}
    checks = {f"task-check-{task}": f"check-task-{task}" for task in sweep.evaluation.further_tasks}
    return SERVICE_STAGES | checks | servers


def stages_of(sweep: RecipeSweep, run: str, stage: str | None) -> tuple[str, ...]:
    """Return the stages whose logs are requested.

    Args:
        sweep: The sweep of the run.
        run: A run, or a name in :func:`service_stages`.
        stage: ``train`` (of a foreign adapter ``import``), ``eval``, ``eval-<recipe>`` for an evaluation served under a
            recipe, or ``task-<task>`` for that of a further task; ``merged`` and ``merged-<recipe>`` for those of the
            merged adapter, and with ``serving-`` before it for its model server; all if None.

    Raises:
        ConfigError: there is no such run, or it has no such stage.
    """
    services = service_stages(sweep)
    if run in services:
        return (services[run],)
    recipes = {run_name(recipe.name, seed): recipe.name for recipe in sweep.recipes for seed in sweep.seeds}
    others = {run_name(each.name, seed): each.trained_under or "" for each in sweep.trainers for seed in sweep.seeds}
    imported = {adapter.name: adapter.trained_under or "" for adapter in sweep.adapters}
    trained = recipes | others | imported
    runs = [*([BASE_RUN] if sweep.evaluation.evaluate_base else []), *trained]
    if run not in runs:
        raise ConfigError(
            "there is no such run", field="run", value=run, remedy=f"Use one of {', '.join((*runs, *services))}."
        )
    recipe = trained.get(run)
    merged = sweep.scored_merged(recipe)
    evaluations = (
        *(eval_stage(under) for under in sweep.scored_under(recipe)),
        *(eval_stage(None, task=task) for task in sweep.evaluation.further_tasks),
        *(eval_stage(under, merged=True) for under in merged),
        *(serve_stage(under, run) for under in merged),
    )
    stages = evaluations if run == BASE_RUN else ("import" if run in imported else "train", *evaluations)
    if stage == "train" and run == BASE_RUN:
        raise ConfigError("is never trained", field="run", value=run, remedy="Leave --stage out.")
    if stage is not None and stage not in stages:
        message = f"run {run} has no such stage"
        raise ConfigError(message, field="--stage", value=stage, remedy=f"Use one of {', '.join(stages)}.")
    return (stage,) if stage else stages


def print_log(title: str, text: str, output: Console) -> None:
    """Print one log under its title."""
    output.out(f"==> {title} <==", highlight=False)
    output.out(text.rstrip("\n"), highlight=False)
