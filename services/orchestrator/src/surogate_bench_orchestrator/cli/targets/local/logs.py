"""The logs of a sweep on this machine."""

from surogate_bench.errors import PermanentError
from surogate_bench_orchestrator.cli.targets.local.sweep import LocalSweep
from surogate_bench_orchestrator.cli.targets.logs import print_log, stages_of
from surogate_bench_orchestrator.cli.terminal.consoles import Consoles
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.tasks import Task, stage_of


def show_logs(local: LocalSweep, run: str, *, stage: str | None, tail: int, consoles: Consoles) -> None:
    """Show the logs of a run's tasks, over all attempts.

    Raises:
        ConfigError: there is no such run.
        PermanentError: it has written nothing.
    """
    runtime = local.runtime()
    stages = stages_of(local.sweep, run, stage)
    tasks = {each: task for each in stages if (task := _task(local.plan, run, each))}
    texts = {each: runtime.logs(task.name, tail=tail) for each, task in tasks.items()}
    if not any(texts.values()):
        raise PermanentError(f"there is no log of {run} in {local.state}: it has not started here")
    for each, text in texts.items():
        if text:
            print_log(f"{run} ({each})", text, consoles.output)


def _task(plan: Plan, run: str, stage: str) -> Task | None:
    if stage == "prepare":
        return plan.prepare
    if stage.startswith("check-"):
        return next((check for check in plan.checks if stage_of(check) == stage), None)
    tasks = next(((*each.tasks, *each.servers_of_its_own) for each in plan.runs if each.name == run), plan.servers)
    return next(task for task in tasks if stage_of(task) == stage)
