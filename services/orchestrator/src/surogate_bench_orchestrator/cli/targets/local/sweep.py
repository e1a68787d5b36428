"""A sweep on this machine: its plan, its store and its local state."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.errors import ConfigError, StoreAwayError, StoreRefusedError
from surogate_bench.specs import RecipeSweep, load_sweep, with_seeds
from surogate_bench.stages.model_source import local_folder
from surogate_bench.store.errors import as_bad_input
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench.user_paths import expand_home, require_current_folder, require_folder, require_free_space
from surogate_bench_orchestrator.cli.sweep_file import read_sweep
from surogate_bench_orchestrator.cli.targets.target import LocalOptions, SweepArgument
from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.runtimes.local.machine import Allotment, allot, detect_machine
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.snapshot import Snapshot

MIN_FREE_BYTES = 1024**3
"""Free space that a sweep needs on each disk that it writes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSweep:
    """A sweep, its store and the folder of its local state."""

    sweep: RecipeSweep
    store: ObjectStore
    plan: Plan
    state: Path
    slots: int | None = None
    """Maximum number of slots; None for as many as the machine allows."""

    def runtime(self) -> LocalRuntime:
        """Make the runtime of the sweep on this machine."""
        return LocalRuntime(self.state, self.allotment(), SystemClock())

    def allotment(self) -> Allotment:
        """Share this machine among the sweep's tasks."""
        trainers, gpus = len(self.plan.training_order), self.sweep.training.gpus
        return allot(detect_machine(), trainers=trainers, gpus=gpus, limit=self.slots)

    def snapshot(self) -> Snapshot:
        """Read the status of the sweep from the store and the local state; another process may be running it.

        Raises:
            ConfigError: the store cannot be reached or refuses.
        """
        runtime = self.runtime()
        tasks = runtime.observe(task.name for task in self.plan.tasks)
        facts = CompletedStages(self.store, self.plan)
        try:
            facts.read_all()
        except (StoreAwayError, StoreRefusedError) as error:
            raise as_bad_input(error, self.store.url) from error
        observed = Observed(done=facts.done, tasks=tasks, slots=runtime.capacity())
        return Snapshot(plan=self.plan, observed=observed, manifests=facts.manifests)

    def report_location(self) -> str:
        """Return where the report is: a path on a local store, else a URL."""
        folder = local_folder(self.store)
        key = f"{self.plan.layout.report}/report.html"
        return str(folder / key) if folder else f"{self.store.url.rstrip('/')}/{key}"


def open_local_sweep(argument: SweepArgument, options: LocalOptions, *, create: bool) -> LocalSweep:
    """Read a sweep and open its store.

    Args:
        argument: The sweep's file, and seeds that replace those of the file.
        options: Store, state folder and settings of the run.
        create: Create a local store that does not exist; otherwise it reads as empty, and is not created, and results
            can be read without the files that the sweep names.

    Raises:
        ConfigError: the file or the store cannot be used.
    """
    sweep = with_seeds(read_sweep(argument.path) if create else load_sweep(argument.path), argument.seeds)
    state = _state_folder(str(options.state_dir))
    store = open_store(options.store, create=create)
    identity = hashlib.sha256(f"{sweep.spec_hash}/{store.url}".encode()).hexdigest()[:12]
    return LocalSweep(
        sweep=sweep,
        store=store,
        plan=plan(sweep, store.url, reuse=not options.no_reuse),
        state=state / f"{sweep.name}-{identity}",
        slots=options.slots,
    )


def require_slots(local: LocalSweep) -> None:
    """Check that a trainer finds as many slots as it needs.

    Raises:
        ConfigError: it never does.
    """
    needed, slots = local.sweep.training.gpus, local.allotment().slots
    if needed > slots:
        raise ConfigError(
            f"only {slots} {'is' if slots == 1 else 'are'} available on this machine (GPUs, or cores without a GPU)",
            field="training.gpus",
            value=needed,
            remedy="Lower it, raise --slots if that is given, or use a machine with more GPUs or cores.",
        )


def require_room(local: LocalSweep) -> None:
    """Check that the disks written to have room for the smallest sweep.

    Raises:
        ConfigError: one has not.
    """
    for field, folder in (("store", local_folder(local.store)), ("state-dir", local.state)):
        if folder is not None:
            require_free_space(folder, MIN_FREE_BYTES, field=field, what="a sweep needs at least")


def _state_folder(text: str) -> Path:
    folder = require_current_folder() / expand_home(text, field="state-dir")
    require_folder(folder, field="state-dir")
    return folder
