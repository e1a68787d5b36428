"""The plan of a sweep: prepare and check, then train, serve and evaluate every run."""

from collections.abc import Mapping
from dataclasses import dataclass

from surogate_bench.layout import BASE_RUN, SweepLayout, run_name
from surogate_bench.recipes import Recipe
from surogate_bench.recipes.precisions import COMPUTES, STORAGES
from surogate_bench.specs.adapters import ForeignAdapter
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.specs.trainers import ForeignTrainer
from surogate_bench_orchestrator.domain.planned_tasks import PlannedTasks
from surogate_bench_orchestrator.domain.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of a run, for one of the ways of serving that the sweep requests."""

    under: str | None
    """Recipe that the base is served under; None for the base as published."""
    merged: bool = False
    """Whether the adapter is merged into the base, which the server then serves without an adapter."""
    further: str | None = None
    """The further task of lm-eval's that is scored; None for the primary one."""
    task: Task
    server: Task
    """The model server whose address the task is given; of a merged evaluation, a server of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One recipe or foreign trainer with one seed, a foreign adapter, or the unmodified base model, only evaluated."""

    name: str
    recipe: Recipe | None = None
    seed: int | None = None
    adapter: ForeignAdapter | None = None
    trainer: ForeignTrainer | None = None
    train: Task | None
    """The task that produces the adapter: a training run, or the import of a foreign one."""
    evaluations: tuple[Evaluation, ...]
    """The evaluation on the base as published is the first; those of further tasks follow those on the other ways of
    serving, and those of the merged adapter are the last."""

    @property
    def row(self) -> str:
        """Name of the row of results that the run is part of: its recipe, trainer or adapter, or the base."""
        trained_by = self.recipe or self.trainer
        return trained_by.name if trained_by else self.name

    @property
    def evaluate(self) -> Task:
        """The evaluation on the base as published."""
        return self.evaluations[0].task

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task of the run, the training first."""
        trained = () if self.train is None else (self.train,)
        return (*trained, *(each.task for each in self.evaluations))

    @property
    def servers_of_its_own(self) -> tuple[Task, ...]:
        """The servers of its adapter merged into the base."""
        return tuple(each.server for each in self.evaluations if each.merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All tasks of a sweep."""

    sweep: RecipeSweep
    layout: SweepLayout
    prepare: Task
    checks: tuple[Task, ...]
    """Tasks that must have succeeded, besides ``prepare``, before anything is trained."""
    servers: tuple[Task, ...]
    """One for each way of serving; that of the base as published is the first. Then one for each merged adapter and
    way: merged weights are another base, and vLLM takes one at its start."""
    runs: tuple[Run, ...]
    """The base first, then recipes, foreign trainers and foreign adapters in the order of the spec."""
    training_order: tuple[Task, ...]
    """The slowest first, so that no long run starts last while other slots are idle (Graham's LPT rule); foreign
    trainers, whose speed is not known, before all."""
    reuse: bool = True
    """Whether results of equal stages of other sweeps in the store are reused."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, in the order in which they first become due."""
        evaluations = (each.task for run in self.runs for each in run.evaluations)
        return (*self.preliminaries, *self.imports, *self.training_order, *self.servers, *evaluations)

    @property
    def imports(self) -> tuple[Task, ...]:
        """Imports of foreign adapters, which hold no slot."""
        return tuple(run.train for run in self.runs if run.train and run.adapter)

    def server_of(self, evaluation: Task) -> Task:
        """Return the model server of an evaluation.

        Raises:
            KeyError: the task is not an evaluation of this plan.
        """
        return {each.task.name: each.server for run in self.runs for each in run.evaluations}[evaluation.name]

    def check_of(self, evaluation: Evaluation) -> Task:
        """Return the check of the task that an evaluation scores.

        Raises:
            StopIteration: the evaluation is not one of this plan.
        """
        output = self.layout.check("task", evaluation.further)
        return next(check for check in self.checks if check.output == output)

    @property
    def server(self) -> Task:
        """The server of the base as published."""
        return self.servers[0]

    @property
    def preliminaries(self) -> tuple[Task, ...]:
        """Tasks before all training: if one of them fails, nothing else can run."""
        return (self.prepare, *self.checks)


def plan(sweep: RecipeSweep, store: str, *, reuse: bool = True) -> Plan:
    """Make the plan of a sweep.

    Args:
        sweep: The user's specification.
        store: URL of the object store that results go to.
        reuse: Reuse results of equal stages of other sweeps in that store.
    """
    layout = SweepLayout(sweep.name, sweep.spec_hash)
    tasks = PlannedTasks(sweep=sweep, store=store, layout=layout)
    servers = {under: tasks.server(under) for under in sweep.served_under}
    planner = _Planner(sweep=sweep, tasks=tasks, servers=servers)
    train = {
        recipe.name: tuple(tasks.train(recipe, seed) for seed in sweep.seeds)
        for recipe in sorted(sweep.recipes, key=_relative_cost, reverse=True)
    }
    base = Run(name=BASE_RUN, train=None, evaluations=planner.evaluations(BASE_RUN, None))
    trained = tuple(
        Run(
            name=run_name(recipe.name, seed),
            recipe=recipe,
            seed=seed,
            train=task,
            evaluations=planner.evaluations(run_name(recipe.name, seed), recipe.name),
        )
        for recipe in sweep.recipes
        for seed, task in zip(sweep.seeds, train[recipe.name], strict=True)
    )
    by_others = tuple(planner.run_of(trainer, seed) for trainer in sweep.trainers for seed in sweep.seeds)
    runs = (*trained, *by_others, *(planner.foreign_run(adapter) for adapter in sweep.adapters))
    every_run = (base, *runs) if sweep.evaluation.evaluate_base else runs
    return Plan(
        sweep=sweep,
        layout=layout,
        prepare=tasks.prepare(),
        checks=tasks.checks(),
        servers=(*servers.values(), *(server for run in every_run for server in run.servers_of_its_own)),
        runs=every_run,
        training_order=(
            *(run.train for run in by_others if run.train),
            *(task for tasks in train.values() for task in tasks),
        ),
        reuse=reuse,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planner:
    sweep: RecipeSweep
    tasks: PlannedTasks
    servers: Mapping[str | None, Task]
    """Servers of the base, by the recipe that it is served under."""

    def run_of(self, trainer: ForeignTrainer, seed: int) -> Run:
        run = run_name(trainer.name, seed)
        return Run(
            name=run,
            trainer=trainer,
            seed=seed,
            train=self.tasks.foreign_train(trainer, seed),
            evaluations=self.evaluations(run, trainer.trained_under or ""),
        )

    def foreign_run(self, adapter: ForeignAdapter) -> Run:
        return Run(
            name=adapter.name,
            adapter=adapter,
            train=self.tasks.import_of(adapter.name),
            evaluations=self.evaluations(adapter.name, adapter.trained_under or ""),
        )

    def evaluations(self, run: str, recipe: str | None) -> tuple[Evaluation, ...]:
        unmerged = (
            Evaluation(under=under, task=self.tasks.evaluate(run, under, merged=False), server=self.servers[under])
            for under in self.sweep.scored_under(recipe)
        )
        merged = (
            Evaluation(
                under=under,
                merged=True,
                task=self.tasks.evaluate(run, under, merged=True),
                server=self.tasks.server(under, run),
            )
            for under in self.sweep.scored_merged(recipe)
        )
        further = (
            Evaluation(
                under=None, further=name, task=self.tasks.evaluate(run, None, task=name), server=self.servers[None]
            )
            for name in self.sweep.evaluation.further_tasks
        )
        return (*unmerged, *further, *merged)


def _relative_cost(recipe: Recipe) -> float:
    """Rank recipes by training time under emulation; on hardware that supports them the order hardly matters."""
    return COMPUTES[recipe.compute].relative_cost + STORAGES[recipe.weight_storage].relative_cost
