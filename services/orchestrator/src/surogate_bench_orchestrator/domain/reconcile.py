"""Decide the next actions from the plan and the observed state. Level-triggered: earlier actions do not matter.

Placement of model servers, each of which holds a slot (an accelerator, or a share of the CPU) as a trainer does:

- *phased*: trainers first. Servers take slots that no trainer waits for. With two slots, the first server starts while
  the last trainer runs; with one slot, servers follow one after another.
- *overlapped*: one server takes a slot as soon as there is something to evaluate on it. With a single slot this would
  alternate between server and trainer, so one slot is always phased.
- *auto*: overlapped from four slots on, where the server's slot costs the trainers at most a quarter of theirs; with
  trainers that hold several slots, where it leaves room for at least three quarters of as many.

Servers of several ways of serving run in parallel if there are free slots, else one after another. A server that can
complete its remaining work precedes one that still waits for adapters, so that few are started twice; an idle one gives
way to it. Servers of merged adapters, each with one evaluation, come last, and only once they have their adapter. Idle
servers give way to trainers that lack a slot, so that one slot never leads to a deadlock.

If slots are not counted (a cluster with autoscaling), trainers are queued, at most :data:`MAX_QUEUED` at a time, and
the number of placed tasks is taken as the number of slots. Servers are queued once no trainer is, or one of them
along with trainers if that number of slots permits overlapping.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from surogate_bench.specs.sweep import Placement
from surogate_bench.stages.requests import CheckRequest
from surogate_bench_orchestrator.domain.observed import Observed, failure_of, run_states
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.serving import (
    Contention,
    ServerWork,
    server_ahead_of_trainers,
    server_work,
    servers_after_trainers,
    servers_to_stop,
)
from surogate_bench_orchestrator.domain.tasks import Phase, Task, adapter_of

MAX_QUEUED = 64
"""Maximum number of trainers that wait for a slot if slots are not counted: enough for an autoscaler to recognize the
demand, without queueing every run of a large sweep at once."""
_AUTO_LEAVES_TRAINERS = 0.75


@dataclass(frozen=True, slots=True)
class Submit:
    """Let the runtime run a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Delete:
    """Let the runtime stop and forget a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Reuse:
    """Complete a task by a reference to an equal, finished stage."""

    task: Task
    source: str
    """Prefix of that stage."""


Action = Submit | Delete | Reuse


def reconcile(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Decide the next actions; empty if the sweep only has to wait, or has ended."""
    if observed.is_done(plan.prepare) and (reused := _reuse(plan, observed)):
        return reused
    if not all(observed.is_done(task) for task in plan.preliminaries):
        return _preliminaries(plan, observed)
    works, waiting = server_work(plan, observed), _waiting_trainers(plan, observed)
    contention = _contention(plan, observed, waiting)
    stopped = tuple(Delete(server) for server in servers_to_stop(works, observed, contention))
    ahead = _server_ahead(works, observed, contention)
    trainers = _trainers(waiting, free=_free(plan, observed) - _slots_of(ahead))
    trainers = trainers or _too_large(waiting, plan, observed)
    following = () if ahead else _servers_after(plan, works, observed, contention, taken=_slots_of(trainers))
    imports = tuple(Submit(task) for task in plan.imports if observed.is_due(task))
    return (*stopped, *imports, *ahead, *trainers, *following, *_evaluations(plan, works, observed))


def overlaps(placement: Placement, slots: int, *, each: int = 1) -> bool:
    """Whether a server may take a slot that a trainer waits for.

    Args:
        placement: The sweep's.
        slots: Number of slots.
        each: Slots of each trainer.
    """
    trainers, beside_server = slots // each, (slots - 1) // each
    if placement is Placement.OVERLAPPED:
        return beside_server > 0
    return placement is Placement.AUTO and beside_server > 0 and beside_server >= _AUTO_LEAVES_TRAINERS * trainers


def _preliminaries(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Prepare and check; if one of them has failed, nothing else can run."""
    if any(failure_of(task, observed) for task in plan.preliminaries):
        return tuple(Delete(task) for task in plan.tasks if observed.is_active(task))
    is_prepared = observed.is_done(plan.prepare)
    due = [task for task in plan.preliminaries if observed.is_due(task)]
    return tuple(Submit(task) for task in due if is_prepared or not _reads_data(task))


def _reads_data(task: Task) -> bool:
    """Whether a task reads what the prepare stage stores."""
    return isinstance(task.request, CheckRequest) and task.request.subject == "task"


def _reuse(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Reuse equal stages; other actions are decided in the next pass, once these references are written."""
    due = [task for task in plan.tasks if observed.is_due(task)]
    return tuple(Reuse(task, observed.reusable[task.name]) for task in due if task.name in observed.reusable)


def _contention(plan: Plan, observed: Observed, waiting: list[Task]) -> Contention:
    lacking = any(observed.lacks_room(task) for task in plan.training_order)
    active = [task for task in plan.training_order if observed.is_active(task)]
    return Contention(
        trainers_wait=bool(waiting or _queued(plan, observed)),
        trainers_lack_room=lacking or (bool(waiting) and _free(plan, observed) < waiting[0].slots),
        trainer_is_placed=any(not observed.lacks_room(task) for task in active),
        has_free_slot=observed.slots is None or _free(plan, observed) >= plan.server.slots,
        overlaps=overlaps(plan.sweep.placement, _known_slots(plan, observed), each=plan.sweep.training.gpus),
    )


def _server_ahead(works: tuple[ServerWork, ...], observed: Observed, contention: Contention) -> tuple[Submit, ...]:
    """Start a server in a slot that trainers wait for too."""
    ahead = server_ahead_of_trainers(works, observed, contention) if contention.has_free_slot else None
    return (Submit(ahead.server),) if ahead else ()


def _trainers(waiting: list[Task], *, free: int) -> tuple[Submit, ...]:
    """Start trainers in the free slots, or queue them, slowest first."""
    started = []
    for task in waiting:
        if task.slots > free:
            break
        free -= task.slots
        started.append(Submit(task))
    return tuple(started)


def _too_large(waiting: list[Task], plan: Plan, observed: Observed) -> tuple[Submit, ...]:
    """Submit a trainer that needs more slots than there are, once all are free: the runtime refuses it by name."""
    if not waiting or observed.slots is None or waiting[0].slots <= observed.slots:
        return ()
    return (Submit(waiting[0]),) if _free(plan, observed) == observed.slots else ()


def _servers_after(
    plan: Plan, works: tuple[ServerWork, ...], observed: Observed, contention: Contention, *, taken: int
) -> tuple[Submit, ...]:
    """Start servers in the slots that are left, or queue them once no trainer is queued."""
    servers = servers_after_trainers(works, observed)
    if observed.slots is None:
        return () if contention.trainers_wait else tuple(Submit(server) for server in servers)
    room = max(0, _free(plan, observed) - taken) // plan.server.slots
    return tuple(Submit(server) for server in servers[:room])


def _evaluations(plan: Plan, works: tuple[ServerWork, ...], observed: Observed) -> tuple[Action, ...]:
    """Evaluate on servers that are ready; if one has failed, stop the evaluations that wait for it."""
    actions: list[Action] = []
    for work in works:
        active = [*work.active, *work.ending]
        if failure_of(work.server, observed):
            actions += [Delete(task) for task in active]
        elif observed.of(work.server).phase is Phase.RUNNING:
            room = max(0, plan.sweep.evaluation.parallel_evaluations - len(active))
            actions += [Submit(task) for task in _side_by_side(work.ready, active)[:room]]
    return tuple(actions)


def _side_by_side(ready: Sequence[Task], active: Sequence[Task]) -> list[Task]:
    """Return evaluations that may be started, one of each adapter at a time: the first to end would unload it."""
    busy, chosen = {adapter_of(task) for task in active}, list[Task]()
    for task in ready:
        adapter = adapter_of(task)
        if adapter is None or adapter not in busy:
            busy.add(adapter)
            chosen.append(task)
    return chosen


def _waiting_trainers(plan: Plan, observed: Observed) -> list[Task]:
    """Return trainers that are due and whose results are needed, slowest first."""
    ended = {name for name, status in run_states(plan, observed).items() if status.state.is_terminal}
    needed = {run.train.name for run in plan.runs if run.train and run.name not in ended}
    return [task for task in plan.training_order if task.name in needed and observed.is_due(task)]


def _free(plan: Plan, observed: Observed) -> int:
    """Return the number of slots for trainers to be submitted; if slots are not counted, of places in the queue."""
    if observed.slots is None:
        return MAX_QUEUED - sum(task.slots for task in _queued(plan, observed))
    return observed.slots - sum(task.slots for task in plan.tasks if observed.is_active(task))


def _queued(plan: Plan, observed: Observed) -> list[Task]:
    """Return the trainers that were submitted and hold no slot yet."""
    return [task for task in plan.training_order if observed.is_active(task) and not observed.is_placed(task)]


def _known_slots(plan: Plan, observed: Observed) -> int:
    """Return the number of slots that are known to exist."""
    if observed.slots is None:
        return sum(task.slots for task in plan.tasks if observed.is_placed(task))
    return observed.slots


def _slots_of(submitted: tuple[Submit, ...]) -> int:
    return sum(action.task.slots for action in submitted)
