"""What to do next, from the plan and what is seen: level-triggered, so it does not matter what was done before.

Placement of the model server, which holds a slot (an accelerator, or a share of the CPU) as a trainer does:

- *phased*: trainers first. The server takes the first slot that no trainer waits for, so with two slots it starts up
  while the last trainer still trains, and with one slot after it.
- *overlapped*: the server takes a slot as soon as there is something to evaluate. With a single slot this would
  alternate between server and trainer, so one slot is always phased.
- *auto*: overlapped from four slots on, where the server's slot costs the trainers at most a quarter of theirs.

Where slots are not counted (a cluster whose nodes come and go), trainers are queued, at most :data:`MAX_QUEUED` at a
time, and as many slots are assumed as tasks are placed. The server is queued once no trainer is, or, where that many
slots allow to overlap, beside them.

A server that keeps a waiting trainer from the only slot, and has nothing to evaluate, gives way.
"""

from dataclasses import dataclass

from surogate_bench.requests import CheckRequest
from surogate_bench.specs.sweep import Placement
from surogate_bench_orchestrator.domain.observed import Observed, failure_of, run_states
from surogate_bench_orchestrator.domain.plan import Plan
from surogate_bench_orchestrator.domain.tasks import Phase, Task

MAX_QUEUED = 64
"""Trainers that wait for a slot at the same time, where slots are not counted: enough for an autoscaler to see what is
needed, and not every run of a large sweep at once."""
_OVERLAP_NEEDS_SLOTS = 2
_AUTO_OVERLAPS_FROM_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Submit:
    """Have the runtime run a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Delete:
    """Have the runtime stop and forget a task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Reuse:
    """Finish a task by referring to an equal stage that is done."""

    task: Task
    source: str
    """Prefix of that stage."""


Action = Submit | Delete | Reuse


def reconcile(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Decide what to do now; an empty answer means to wait, or that all is done."""
    if observed.is_done(plan.prepare) and (reused := _reuse(plan, observed)):
        return reused
    if not all(observed.is_done(task) for task in plan.preliminaries):
        return _preliminaries(plan, observed)
    server = _server(plan, observed)
    trainers = _trainers(plan, observed, taken=_slots_of(server))
    if not server and _server_may_follow(plan, observed, taken=_slots_of(trainers)):
        server = (Submit(plan.server),)
    return (*server, *trainers, *_evaluations(plan, observed))


def overlaps(placement: Placement, slots: int) -> bool:
    """Whether the server may take a slot that a trainer waits for."""
    if placement is Placement.OVERLAPPED:
        return slots >= _OVERLAP_NEEDS_SLOTS
    return placement is Placement.AUTO and slots >= _AUTO_OVERLAPS_FROM_SLOTS


def _preliminaries(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Prepare and check; where one of them has failed nothing else can work."""
    if any(failure_of(task, observed) for task in plan.preliminaries):
        return tuple(Delete(task) for task in plan.tasks if observed.is_active(task))
    is_prepared = observed.is_done(plan.prepare)
    due = [task for task in plan.preliminaries if observed.is_due(task)]
    return tuple(Submit(task) for task in due if is_prepared or not _reads_data(task))


def _reads_data(task: Task) -> bool:
    """Whether a task reads what the prepare stage stores."""
    return isinstance(task.request, CheckRequest) and task.request.subject == "task"


def _reuse(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Compute nothing twice; what else is to do is decided once these are done, in the next round."""
    due = [task for task in plan.tasks if observed.is_due(task)]
    return tuple(Reuse(task, observed.reusable[task.name]) for task in due if task.name in observed.reusable)


def _server(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Start the server ahead of the trainers, or stop it."""
    evaluating = any(observed.is_active(run.evaluate) for run in plan.runs)
    if observed.is_active(plan.server):
        unused = not evaluating and (not _wanted(plan, observed) or _blocks_a_trainer(plan, observed))
        return (Delete(plan.server),) if unused else ()
    ahead = overlaps(plan.sweep.placement, _slots_seen(plan, observed)) and _ready(plan, observed)
    if ahead and observed.is_due(plan.server) and _has_room_for_server(plan, observed):
        return (Submit(plan.server),)
    return ()


def _trainers(plan: Plan, observed: Observed, *, taken: int) -> tuple[Action, ...]:
    """Start trainers in the free slots, or queue them, slowest first."""
    free = _free(plan, observed) - taken
    started = []
    for task in _waiting_trainers(plan, observed):
        if task.slots > free:
            break
        free -= task.slots
        started.append(Submit(task))
    return tuple(started)


def _server_may_follow(plan: Plan, observed: Observed, *, taken: int) -> bool:
    """Whether a slot is left for the server once the trainers have theirs."""
    if not (observed.is_due(plan.server) and _wanted(plan, observed)):
        return False
    if observed.slots is None:
        return not _queued(plan, observed) and not _waiting_trainers(plan, observed)
    return _free(plan, observed) - taken >= plan.server.slots


def _evaluations(plan: Plan, observed: Observed) -> tuple[Action, ...]:
    """Evaluate while the server is ready; where it has failed, stop those that would wait for it."""
    active = [run.evaluate for run in plan.runs if observed.is_active(run.evaluate)]
    if failure_of(plan.server, observed):
        return tuple(Delete(task) for task in active)
    if observed.of(plan.server).phase is not Phase.RUNNING:
        return ()
    room = max(0, plan.sweep.evaluation.parallel_evaluations - len(active))
    return tuple(Submit(task) for task in _ready(plan, observed)[:room])


def _wanted(plan: Plan, observed: Observed) -> bool:
    """Whether something is, or will be, there to evaluate."""
    return any(not status.state.is_terminal for status in run_states(plan, observed).values())


def _blocks_a_trainer(plan: Plan, observed: Observed) -> bool:
    """Whether trainers wait, due or submitted in vain, while the server holds a slot for nothing."""
    if observed.of(plan.server).unplaced or _ready(plan, observed):
        return False
    active = [observed.of(task) for task in plan.training_order if observed.is_active(task)]
    if any(not seen.unplaced for seen in active):
        return False
    waiting = _waiting_trainers(plan, observed)
    return bool(active) or (bool(waiting) and _free(plan, observed) < waiting[0].slots)


def _waiting_trainers(plan: Plan, observed: Observed) -> list[Task]:
    ended = {name for name, status in run_states(plan, observed).items() if status.state.is_terminal}
    wanted = {run.train.name for run in plan.runs if run.train and run.name not in ended}
    return [task for task in plan.training_order if task.name in wanted and observed.is_due(task)]


def _ready(plan: Plan, observed: Observed) -> list[Task]:
    """Evaluations that only need the server."""
    return [
        run.evaluate
        for run in plan.runs
        if observed.is_due(run.evaluate) and (run.train is None or observed.is_done(run.train))
    ]


def _free(plan: Plan, observed: Observed) -> int:
    """Slots that trainers may be submitted for; where slots are not counted, places in the queue."""
    if observed.slots is None:
        return MAX_QUEUED - sum(task.slots for task in _queued(plan, observed))
    return observed.slots - sum(task.slots for task in plan.tasks if observed.is_active(task))


def _queued(plan: Plan, observed: Observed) -> list[Task]:
    """Trainers that were submitted and hold no slot yet."""
    return [task for task in plan.training_order if observed.is_active(task) and not observed.is_placed(task)]


def _slots_seen(plan: Plan, observed: Observed) -> int:
    """Slots that are known to be there."""
    if observed.slots is None:
        return sum(task.slots for task in plan.tasks if observed.is_placed(task))
    return observed.slots


def _has_room_for_server(plan: Plan, observed: Observed) -> bool:
    return observed.slots is None or _free(plan, observed) >= plan.server.slots


def _slots_of(actions: tuple[Action, ...]) -> int:
    return sum(action.task.slots for action in actions if isinstance(action, Submit))
