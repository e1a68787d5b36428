"""The remaining work of each model server, and which servers to start and stop for it: pure.

A server has *work* while an evaluation on it is running or only needs the server. It is *idle* when it has none but
will have some, once further adapters are trained. It is *over* when nothing remains to be scored on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from surogate_bench_orchestrator.domain.observed import Observed, evaluation_states
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.tasks import Task, is_merged


@dataclass(slots=True, kw_only=True)
class ServerWork:
    """The remaining work of one server."""

    server: Task
    ready: list[Task] = field(default_factory=list)
    """Evaluations that only need the server."""
    active: list[Task] = field(default_factory=list)
    """Evaluations that were submitted and have not ended."""
    ending: list[Task] = field(default_factory=list)
    """Evaluations whose result no longer matters, or is in the store, and whose processes still run."""
    later: int = 0
    """Evaluations whose adapter is not trained yet."""

    @property
    def has_work(self) -> bool:
        """Whether something can be scored now."""
        return bool(self.ready or self.active)

    @property
    def is_idle(self) -> bool:
        """Whether nothing can be scored now, but will be later."""
        return not self.has_work and not self.ending and self.later > 0

    @property
    def may_precede_adapters(self) -> bool:
        """Whether it is idle and can start nevertheless: a server needs its merged adapter when it starts."""
        return self.is_idle and not is_merged(self.server)

    @property
    def is_over(self) -> bool:
        """Whether no work remains."""
        return not self.has_work and not self.ending and self.later == 0

    @property
    def completes(self) -> bool:
        """Whether all of the remaining work can be done now, so that it does not have to be started again."""
        return self.has_work and self.later == 0


def server_work(plan: Plan, observed: Observed) -> tuple[ServerWork, ...]:
    """Assign the remaining evaluations to the servers, in the plan's order."""
    works = {server.name: ServerWork(server=server) for server in plan.servers}
    for run in plan.runs:
        is_trained = run.train is None or observed.is_done(run.train)
        states = evaluation_states(plan, run, observed)
        for each in run.evaluations:
            work = works[each.server.name]
            has_ended = states[each.task.name].state.is_terminal
            if observed.is_active(each.task):
                (work.ending if has_ended else work.active).append(each.task)
            elif not has_ended and is_trained:
                work.ready.append(each.task)
            elif not has_ended:
                work.later += 1
    return tuple(works.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """How trainers compete with servers for slots."""

    trainers_wait: bool
    """Whether trainers are due, or queued."""
    trainers_lack_room: bool
    """Whether trainers wait and there is no free slot for the next one."""
    trainer_is_placed: bool
    """Whether any trainer holds a slot."""
    has_free_slot: bool
    """Whether a server that is submitted now gets a slot, or a place in the queue."""
    overlaps: bool
    """Whether one server may take a slot that a trainer waits for."""


def servers_to_stop(works: Iterable[ServerWork], observed: Observed, contention: Contention) -> list[Task]:
    """Return servers without remaining work, and idle ones whose slots are needed.

    While trainers lack slots, one idle server is kept as long as a trainer runs; otherwise all give way.
    Otherwise an idle server gives way to one that has work, the last in the plan's order first: the first is that of
    the base as published, on which every adapter is scored.
    """
    running = [work for work in works if observed.is_active(work.server)]
    over = [work.server for work in running if work.is_over]
    idle = [work.server for work in running if work.is_idle and not observed.lacks_room(work.server)]
    starved = [work for work in _startable(works, observed, contention) if _is_starved(work, observed, contention)]
    needed = len(starved)
    if contention.trainers_lack_room:
        needed = max(needed, len(idle) - (1 if contention.trainer_is_placed else 0))
    return over + idle[max(0, len(idle) - needed) :]


def server_ahead_of_trainers(
    works: Iterable[ServerWork], observed: Observed, contention: Contention
) -> ServerWork | None:
    """Choose a server that may take a slot before trainers, unless one has work already.

    It is one that completes what is left for it, or that of the base as published: any other would score only the
    unmodified model, and be started again for each adapter.
    """
    works = tuple(works)
    if not contention.overlaps or any(work.has_work and observed.is_active(work.server) for work in works):
        return None
    candidates = (work for work in _by_usefulness(works) if work.completes or work is works[0])
    return next((work for work in candidates if observed.is_due(work.server)), None)


def servers_after_trainers(works: Iterable[ServerWork], observed: Observed) -> list[Task]:
    """Return servers that may take a slot that no trainer waits for, the most useful first.

    If none has work and none runs, one may start while the last trainers run.
    """
    works = tuple(works)
    useful = [work.server for work in _by_usefulness(works) if observed.is_due(work.server)]
    if useful or any(observed.is_active(work.server) for work in works):
        return useful
    return [work.server for work in works if work.may_precede_adapters and observed.is_due(work.server)][:1]


def _startable(works: Iterable[ServerWork], observed: Observed, contention: Contention) -> list[ServerWork]:
    """Return the servers with work that may be started now, free slots permitting."""
    works = tuple(works)
    if not contention.trainers_wait:
        return _by_usefulness(works)
    ahead = server_ahead_of_trainers(works, observed, contention)
    return [ahead] if ahead else []


def _is_starved(work: ServerWork, observed: Observed, contention: Contention) -> bool:
    """Whether a server with work gets no slot."""
    is_due = observed.is_due(work.server)
    return (is_due and not contention.has_free_slot) or observed.lacks_room(work.server)


def _by_usefulness(works: Iterable[ServerWork]) -> list[ServerWork]:
    """Return the servers with work: first those that can complete it, then in the plan's order.

    Those of merged adapters come last: what they are compared with is scored first.
    """
    with_work = (work for work in works if work.has_work)
    return sorted(with_work, key=lambda work: (is_merged(work.server), not work.completes))
