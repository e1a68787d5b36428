"""What the logs commands of both targets share: which stages have logs, and how a log is printed."""

from rich.console import Console

from surogate_bench.errors import ConfigError
from surogate_bench.layout import BASE_RUN, run_name
from surogate_bench.specs import RecipeSweep

SERVICE_STAGES = {
    "prepare": "prepare", "task-check": "check-task", "serving-check": "check-serving", "model-server": "serve",
}  # fmt: skip
"""Stages that the runs share, by the name that stands for a run."""


def stages_of(sweep: RecipeSweep, run: str, stage: str | None) -> tuple[str, ...]:
    """Return the stages whose logs are requested.

    Args:
        sweep: The sweep of the run.
        run: A run, or a key of :data:`SERVICE_STAGES`.
        stage: ``train`` or ``eval``; all stages of the run if None.

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
    stages = ("eval",) if run == BASE_RUN else ("train", "eval")
    if stage is not None and stage not in stages:
        raise ConfigError("is never trained", field="run", value=run, remedy="Leave --stage out.")
    return (stage,) if stage else stages


def print_log(title: str, text: str, output: Console) -> None:
    """Print one log under its title."""
    output.out(f"==> {title} <==", highlight=False)
    output.out(text.rstrip("\n"), highlight=False)
