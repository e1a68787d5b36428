"""What every command about one sweep starts from."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.data_files import split_files
from surogate_bench.errors import ConfigError, StoreAwayError, StoreRefusedError
from surogate_bench.model_source import local_folder, require_model_folder
from surogate_bench.specs import RecipeSweep, load_sweep, with_seeds
from surogate_bench.store import ObjectStore, open_store
from surogate_bench.store_errors import as_bad_input
from surogate_bench.task_files import TaskFolders
from surogate_bench.user_paths import expand_home, require_current_folder, require_folder
from surogate_bench_orchestrator.adapters.local.machine import allot, detect_machine
from surogate_bench_orchestrator.adapters.local.runtime import LocalRuntime
from surogate_bench_orchestrator.domain.observed import Observed
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.sweep.clock import SystemClock
from surogate_bench_orchestrator.sweep.completed_stages import CompletedStages
from surogate_bench_orchestrator.sweep.runner import Snapshot

_LEAST_FREE = 1024**3
"""Bytes that a sweep needs at least on each disk it writes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One sweep, its store and the folder of its local state."""

    sweep: RecipeSweep
    store: ObjectStore
    plan: Plan
    state: Path

    def local_runtime(self, slots: int | None = None) -> LocalRuntime:
        """Make the runtime of this machine, with at most ``slots`` slots."""
        allotment = allot(detect_machine(), trainers=len(self.plan.training_order), limit=slots)
        return LocalRuntime(self.state, allotment, SystemClock())

    def look(self) -> Snapshot:
        """See how the sweep stands, from the store and the local state, whoever works on it.

        Raises:
            ConfigError: the store cannot be reached or refuses.
        """
        runtime = self.local_runtime()
        seen = runtime.observe(task.name for task in self.plan.tasks)
        facts = CompletedStages(self.store, self.plan)
        try:
            facts.read_all()
        except (StoreAwayError, StoreRefusedError) as error:
            raise as_bad_input(error, self.store.url) from error
        observed = Observed(done=facts.done, tasks=seen, slots=runtime.capacity())
        return Snapshot(plan=self.plan, observed=observed, manifests=facts.manifests)

    def report_location(self) -> str:
        """Where the report is: a path on a local store, else a URL."""
        folder = local_folder(self.store)
        key = f"{self.plan.layout.report}/report.html"
        return str(folder / key) if folder else f"{self.store.url.rstrip('/')}/{key}"


def open_session(
    sweep_file: Path,
    *,
    store: str,
    state_dir: Path,
    create: bool = True,
    reuse: bool = True,
    seeds: Sequence[int] | None = None,
) -> Session:
    """Read a sweep and open its store.

    Args:
        sweep_file: The sweep's YAML.
        store: URL or folder of the store.
        state_dir: Folder that the local state of sweeps lies below.
        create: Make a local store that is not there; else it looks empty, and stays away.
        reuse: Take results of equal stages of other sweeps in the store.
        seeds: Take the place of the file's, where given.

    Raises:
        ConfigError: the file or the store cannot be used.
    """
    sweep = with_seeds(read_sweep(sweep_file), seeds or ())
    state = _state_folder(str(state_dir))
    opened = open_store(store, create=create)
    identity = hashlib.sha256(f"{sweep.spec_hash}/{opened.url}".encode()).hexdigest()[:12]
    return Session(
        sweep=sweep,
        store=opened,
        plan=plan(sweep, opened.url, reuse=reuse),
        state=state / f"{sweep.name}-{identity}",
    )


def _state_folder(text: str) -> Path:
    folder = require_current_folder() / expand_home(text, field="state-dir")
    require_folder(folder, field="state-dir")
    return folder


def read_sweep(sweep_file: Path) -> RecipeSweep:
    """Read a sweep and check that the local files and the task that it names are there.

    Raises:
        ConfigError: it cannot be used as it is.
    """
    sweep = load_sweep(sweep_file)
    if sweep.model.path is not None:
        require_model_folder(sweep.model.path)
    if sweep.data.path is not None:
        split_files(sweep.data.path)
    TaskFolders.of(sweep.evaluation.tasks_dir).require(sweep.evaluation.task)
    return sweep


def require_free_space(session: Session) -> None:
    """Check that the disks written to have room for the smallest sweep.

    Raises:
        ConfigError: one has not.
    """
    stored = local_folder(session.store)
    for field, folder in (("store", stored), ("state-dir", session.state)):
        if folder is None:
            continue
        present = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(present).free
        if free < _LEAST_FREE:
            raise ConfigError(
                f"is on a disk with {free >> 20:,} MiB free, and a sweep needs at least {_LEAST_FREE >> 20:,} MiB",
                field=field,
                value=str(folder),
                remedy="Free some space or choose another folder.",
            )
