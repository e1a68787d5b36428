"""The tasks of a sweep: names, requests, slots and deadlines."""

import re
from dataclasses import dataclass

from surogate_bench.contract import SERVER_PORT, VLLM_PORT, Service
from surogate_bench.layout import CheckSubject, SweepLayout, run_name
from surogate_bench.recipes import Recipe
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.specs.trainers import ForeignTrainer
from surogate_bench.stages.requests import (
    CheckRequest,
    EvaluateRequest,
    ForeignTrainRequest,
    ImportRequest,
    PrepareRequest,
    ServeRequest,
    TrainRequest,
)
from surogate_bench_orchestrator.domain.tasks import Task, task_name

UNADDRESSED = ""
"""Server address in a planned evaluation; it is known only once the server runs."""

_PREPARE_TIMEOUT_S = 4 * 3600.0
"""Enough to download a large model and its data set."""

_CHECK_TIMEOUT_S = 3600.0
"""Enough to download the data of a task that has its own."""

_IMPORT_TIMEOUT_S = 3600.0
"""Enough to download an adapter."""

_CHECKING_S = 3600.0
"""Enough to check and validate an adapter that a foreign trainer left."""

_MARGIN_S = 60.0
"""Added to deadlines that the services enforce themselves, so that their error message is recorded first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTasks:
    """Makes the tasks of one sweep."""

    sweep: RecipeSweep
    store: str
    """URL of the object store that results go to."""
    layout: SweepLayout

    def prepare(self) -> Task:
        """Return the task before all others."""
        return Task(
            name=self._name("prepare"),
            service=Service.TRAINER,
            request=PrepareRequest(sweep=self.sweep, store=self.store),
            slots=0,
            max_attempts=self.sweep.max_attempts,
            timeout_s=_PREPARE_TIMEOUT_S,
            output=self.layout.prepare,
        )

    def checks(self) -> tuple[Task, ...]:
        """Return the checks; that of serving is omitted if the sweep has no extra arguments for the server."""
        serving = (self._check("serving", Service.MODEL_SERVER),) if self.sweep.serving.extra_args else ()
        further = (self._check("task", Service.EVALUATOR, name) for name in self.sweep.evaluation.further_tasks)
        return (*serving, self._check("task", Service.EVALUATOR), *further)

    def _check(self, subject: CheckSubject, service: Service, task: str | None = None) -> Task:
        return Task(
            name=self._name("check", subject, of_task=task),
            service=service,
            request=CheckRequest(sweep=self.sweep, store=self.store, subject=subject, task=task),
            slots=0,
            max_attempts=self.sweep.max_attempts,
            timeout_s=_CHECK_TIMEOUT_S,
            output=self.layout.check(subject, task),
        )

    def train(self, recipe: Recipe, seed: int) -> Task:
        """Return the training of a recipe."""
        request = TrainRequest(sweep=self.sweep, store=self.store, recipe=recipe.name, seed=seed)
        slots = self.sweep.training.gpus
        return self._train(run_name(recipe.name, seed), request, self.sweep.train_timeout_s, slots=slots)

    def foreign_train(self, trainer: ForeignTrainer, seed: int) -> Task:
        """Return the training by a foreign trainer; its time is enough for every attempt to pass its deadline."""
        request = ForeignTrainRequest(sweep=self.sweep, store=self.store, trainer=trainer.name, seed=seed)
        timeout_s = (trainer.timeout_s or self.sweep.train_timeout_s) * self.sweep.max_attempts + _CHECKING_S
        return self._train(run_name(trainer.name, seed), request, timeout_s, slots=1)

    def _train(self, run: str, request: TrainRequest | ForeignTrainRequest, timeout_s: float, *, slots: int) -> Task:
        return Task(
            name=self._name(run, "train"),
            service=Service.TRAINER,
            request=request,
            slots=slots,
            max_attempts=self.sweep.max_attempts,
            timeout_s=timeout_s,
            output=self.layout.train(run),
        )

    def import_of(self, adapter: str) -> Task:
        """Return the import of a foreign adapter."""
        return Task(
            name=self._name(adapter, "import"),
            service=Service.TRAINER,
            request=ImportRequest(sweep=self.sweep, store=self.store, adapter=adapter),
            slots=0,
            max_attempts=self.sweep.max_attempts,
            timeout_s=_IMPORT_TIMEOUT_S,
            output=self.layout.train(adapter),
        )

    def server(self, under: str | None, merged: str | None = None) -> Task:
        """Return a model server, of the base or of an adapter's run that is merged into it."""
        name = (
            self._name("serve", under=under) if merged is None else self._name(merged, "serve", "merged", under=under)
        )
        return Task(
            name=name,
            service=Service.MODEL_SERVER,
            request=ServeRequest(
                sweep=self.sweep, store=self.store, port=SERVER_PORT, vllm_port=VLLM_PORT, under=under, merged=merged
            ),
            slots=1,
            max_attempts=self.sweep.max_attempts,
            timeout_s=self.sweep.serving.start_timeout_s + _MARGIN_S,
            output=None,
        )

    def evaluate(self, run: str, under: str | None, *, merged: bool = False, task: str | None = None) -> Task:
        """Return an evaluation of a run; ``task`` is a further one of lm-eval's, None for the primary one."""
        stage = ("eval", "merged") if merged else ("eval",)
        return Task(
            name=self._name(run, *stage, under=under, of_task=task),
            service=Service.EVALUATOR,
            request=EvaluateRequest(
                sweep=self.sweep,
                store=self.store,
                run=run,
                server_url=UNADDRESSED,
                under=under,
                merged=merged,
                task=task,
            ),
            slots=0,
            max_attempts=self.sweep.max_attempts,
            timeout_s=self.sweep.evaluation.timeout_s + _MARGIN_S,
            output=self.layout.eval(run, under, merged=merged, task=task),
        )

    def _name(self, *parts: str, under: str | None = None, of_task: str | None = None) -> str:
        identity = f"{self.layout.spec_hash}/{self.store}"
        if of_task is not None:  # part of the identity, as different names can be equal as parts of DNS labels
            label = re.sub("[^a-z0-9]+", "-", of_task.lower()).strip("-")
            return task_name(self.sweep.name, *parts, label, identity=f"{identity}/task/{of_task}")
        if under is None:
            return task_name(self.sweep.name, *parts, identity=identity)
        # Part of the identity too, as different names of runs and recipes can be equal once joined by dashes.
        return task_name(self.sweep.name, *parts, under, identity=f"{identity}/under/{under}")
