"""Whatever happens between two decisions, a sweep ends in the same state and nothing is done twice."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_sweep

from surogate_bench_orchestrator.domain.observed import Observed, RunState, is_finished, run_states
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import Delete, reconcile
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task, is_merged


def small_plan(recipes: tuple[str, ...] = ("bf16", "fp8"), **changes: Any) -> Plan:
    sections: dict[str, Any] = {"recipes": list(recipes), "evaluation": {"parallel_evaluations": 2}}
    return plan(small_sweep(**sections | changes), "file:///results")


class QueueingRuntime(MemoryRuntime):
    """Counts no slots, as a cluster does: takes every task, and places as many as there is room for, in its own order.

    Args:
        room: Number of slots, which is not reported.
        newest_first: Whether what was submitted last is placed first.
    """

    def __init__(
        self, *, room: int, newest_first: bool, ending: Callable[[Task, int], Ending], publish: Callable[[Task], None]
    ) -> None:
        super().__init__(slots=1000, ending=ending, publish=publish)
        self.room = room
        self._newest_first = newest_first
        self._placed: set[str] = set()
        self._examined: set[str] = set()

    def capacity(self) -> int | None:
        return None

    def delete(self, name: str) -> None:
        super().delete(name)
        self._placed.discard(name)
        self._examined.discard(name)

    def observe(self, names: Iterable[str]) -> Mapping[str, Observation]:
        def as_reported(name: str, as_is: Observation) -> Observation:
            waits = as_is.phase is Phase.PENDING and name not in self._placed
            return replace(as_is, queued=waits, unplaced=waits and name in self._examined)

        return {name: as_reported(name, as_is) for name, as_is in super().observe(names).items()}

    def advance(self) -> None:
        entries = list(self._entries.items())
        for name, entry in reversed(entries) if self._newest_first else entries:
            if entry.observation.phase is Phase.PENDING and name not in self._placed:
                if entry.task.slots <= self.room - self.held():
                    self._placed.add(name)
                self._examined.add(name)
        waiting = {
            name: entry for name, entry in entries if entry.observation.phase.is_active and name not in self._placed
        }
        for name in waiting:
            del self._entries[name]
        super().advance()
        self._entries |= waiting
        for name, entry in self._entries.items():
            if not entry.observation.phase.is_active:
                self._placed.discard(name)

    def held(self) -> int:
        """Slots that are taken."""
        return sum(self._entries[name].task.slots for name in self._placed)


@dataclass
class World:
    """A plan driven on the in-memory runtime, with everything that can go wrong between two decisions."""

    laid_out: Plan
    runtime: MemoryRuntime
    done: set[str]
    completions: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, laid_out: Plan, slots: int, bad: Mapping[str, Ending]) -> "World":
        done: set[str] = set()
        completions: list[str] = []

        def publish(task: Task) -> None:
            assert task.name not in done, f"{task.name} was done twice"
            done.add(task.name)
            completions.append(task.name)

        def ending(task: Task, attempt: int) -> Ending:
            del attempt
            return next((how for words, how in bad.items() if words in task.name), Ending.OK)

        return cls(laid_out, MemoryRuntime(slots=slots, ending=ending, publish=publish), done, completions)

    def observe(self) -> Observed:
        tasks = self.runtime.observe(task.name for task in self.laid_out.tasks)
        return Observed(done=frozenset(self.done), tasks=tasks, slots=self.runtime.capacity())

    def round(self, *, acts: int | None = None) -> None:
        """Observe, decide, and do the first ``acts`` of what was decided, as if killed then."""
        for action in reconcile(self.laid_out, self.observe())[:acts]:
            if isinstance(action, Delete):
                self.runtime.delete(action.task.name)
            else:
                assert action.task.name not in self.done, f"{action.task.name} is repeated"
                self._check_server(action.task)
                self.runtime.submit(action.task)  # raises when slots are exceeded

    def _check_server(self, task: Task) -> None:
        """An evaluation starts only where its own server is ready."""
        servers = {each.task: each.server for run in self.laid_out.runs for each in run.evaluations}
        if task in servers:
            assert self.observe().of(servers[task]).phase is Phase.RUNNING
        if is_merged(task):
            run = next(run for run in self.laid_out.runs if task in (*run.tasks, *run.servers_of_its_own))
            assert run.train is not None
            assert run.train.name in self.done, "a model was merged before its adapter was there"

    def starts(self, task: Task) -> int:
        """How often a task was submitted."""
        return self.runtime.submitted.count(task.name)

    def settle(self) -> dict[str, RunState]:
        for _ in range(400):
            if is_finished(self.laid_out, self.observe()):
                return {name: status.state for name, status in run_states(self.laid_out, self.observe()).items()}
            self.round()
            self.runtime.advance()
        raise AssertionError(f"no end: {run_states(self.laid_out, self.observe())}")


WAYS = st.sampled_from([["bf16"], ["own"], ["fp8"], ["own", "fp4"], ["all"]])
FAULTS = [
    "bf16-s0-train", "fp8-s0-train", "fp8-s0-eval", "fp8-s0-eval-fp8", "base-eval", "small-serve", "serve-fp8",
    "fp8-s0-serve-merged", "fp4-s0-eval-merged", "fp8-s0-serve-merged-fp8",
]  # fmt: skip


def drawn_plan(data: st.DataObject, *, gpus: int = 1) -> Plan:
    return small_plan(
        ("bf16", "fp8", "fp4"),
        training={"gpus": gpus},
        placement=data.draw(st.sampled_from(["auto", "phased", "overlapped"])),
        evaluation={"evaluate_base": data.draw(st.booleans())},
        serving={"under": data.draw(WAYS), "merged": data.draw(st.booleans())},
    )


def drawn_faults(data: st.DataObject, *more: str) -> dict[str, Ending]:
    endings = st.sampled_from([how for how in Ending if how is not Ending.OK])
    faults = data.draw(st.dictionaries(st.sampled_from([*FAULTS, *more]), endings, max_size=2))
    # How many evaluations a server completes that starts and crashes repeatedly depends on time: see the last test.
    return {name: how for name, how in faults.items() if not (name.startswith("serve") and how is Ending.CRASH)}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_happens_every_sweep_ends_in_the_same_state_and_nothing_is_done_twice(data: st.DataObject) -> None:
    gpus = data.draw(st.sampled_from([1, 2]))
    laid_out = drawn_plan(data, gpus=gpus)
    slots = data.draw(st.integers(gpus, 5))
    bad = drawn_faults(data, "prepare", "check-task")
    undisturbed = World.make(laid_out, slots, bad).settle()
    world = World.make(laid_out, slots, bad)
    for event in data.draw(st.lists(st.sampled_from(["advance", "round", "killed", "lose", "restart"]), max_size=30)):
        match event:
            case "advance":
                world.runtime.advance()
            case "round":
                world.round()
            case "killed":
                world.round(acts=1)
            case "lose":
                world.runtime.delete(data.draw(st.sampled_from(laid_out.tasks)).name)
            case "restart":
                for task in laid_out.tasks:
                    world.runtime.delete(task.name)
    assert world.settle() == undisturbed
    assert len(world.completions) == len(set(world.completions))
    assert not [task for task in laid_out.tasks if world.observe().is_active(task)]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_sweep_ends_in_the_same_state_whatever_room_there_is_and_though_nobody_counts_it(
    data: st.DataObject,
) -> None:
    laid_out = drawn_plan(data)
    bad = drawn_faults(data)
    undisturbed = World.make(laid_out, 1, bad).settle()
    world = World.make(laid_out, 1, bad)
    counted = world.runtime
    runtime = QueueingRuntime(
        room=0, newest_first=data.draw(st.booleans()), ending=counted._ending, publish=counted._publish
    )
    world.runtime = runtime
    for event in data.draw(st.lists(st.sampled_from(["advance", "round", "killed", "lose", "resize"]), max_size=30)):
        match event:
            case "advance":
                runtime.advance()
            case "round":
                world.round()
            case "killed":
                world.round(acts=1)
            case "lose":
                runtime.delete(data.draw(st.sampled_from(laid_out.tasks)).name)
            case "resize":
                runtime.room = data.draw(st.integers(runtime.held(), 5))
    runtime.room = max(runtime.room, 1)
    assert world.settle() == undisturbed
    assert len(world.completions) == len(set(world.completions))
    assert not [task for task in laid_out.tasks if world.observe().is_active(task)]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_an_undisturbed_sweep_starts_each_server_once_or_twice_and_each_evaluation_once(data: st.DataObject) -> None:
    laid_out = drawn_plan(data)
    world = World.make(laid_out, data.draw(st.integers(1, 5)), {})
    assert set(world.settle().values()) == {RunState.SUCCEEDED}
    assert all(1 <= world.starts(server) <= 2 for server in laid_out.servers if _is_needed(laid_out, server))
    assert all(world.starts(server) == 1 for server in laid_out.servers if is_merged(server))
    assert all(world.starts(each.task) == 1 for run in laid_out.runs for each in run.evaluations)


def _is_needed(laid_out: Plan, server: Task) -> bool:
    return any(each.server == server for run in laid_out.runs for each in run.evaluations)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_with_a_server_that_crashes_repeatedly_a_sweep_ends_with_the_evaluations_completed_between(
    data: st.DataObject,
) -> None:
    laid_out = drawn_plan(data)
    world = World.make(laid_out, data.draw(st.integers(1, 5)), {"serve": Ending.CRASH} | drawn_faults(data))
    states = world.settle()
    scored = {run.name for run in laid_out.runs if all(each.task.name in world.done for each in run.evaluations)}
    assert {name for name, state in states.items() if state is RunState.SUCCEEDED} == scored
    assert len(world.completions) == len(set(world.completions))
    assert not [task for task in laid_out.tasks if world.observe().is_active(task)]
