"""The state of a sweep at one moment, as everything that decides on it or displays it receives it."""

from collections.abc import Mapping
from dataclasses import dataclass

from surogate_bench.stages.manifest import Manifest
from surogate_bench_orchestrator.domain.observed import Failure, Observed, RunState, RunStatus, is_finished, run_states
from surogate_bench_orchestrator.domain.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State of a sweep at one moment."""

    plan: Plan
    observed: Observed
    manifests: Mapping[str, Manifest]
    """Manifests of finished stages by task name."""

    @property
    def states(self) -> dict[str, RunStatus]:
        """Return the state of each run."""
        return run_states(self.plan, self.observed)

    @property
    def is_finished(self) -> bool:
        """Whether every run has ended and no task runs any more."""
        return is_finished(self.plan, self.observed)

    def failures(self) -> tuple[dict[str, Failure], dict[str, Failure]]:
        """Return why runs failed, and why runs were skipped, by run name."""
        ended = {name: (status.state, status.failure) for name, status in self.states.items() if status.failure}
        failed = {name: why for name, (state, why) in ended.items() if state is not RunState.SKIPPED}
        skipped = {name: why for name, (state, why) in ended.items() if state is RunState.SKIPPED}
        return failed, skipped
