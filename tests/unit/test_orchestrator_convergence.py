"""Whatever happens between two decisions, a sweep ends in the same state and nothing is done twice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from surogate_bench.specs.yaml_io import parse_sweep
from surogate_bench_orchestrator.adapters.memory import Ending, MemoryRuntime
from surogate_bench_orchestrator.domain.observed import Observed, RunState, is_finished, run_states
from surogate_bench_orchestrator.domain.plan import Plan, plan
from surogate_bench_orchestrator.domain.reconcile import Delete, reconcile
from surogate_bench_orchestrator.domain.tasks import Task


def small_plan(recipes: tuple[str, ...] = ("bf16", "fp8"), **changes: Any) -> Plan:
    spec = {
        "name": "small",
        "model": {"builtin": "tiny-qwen3-en"},
        "data": {"builtin": "word-problems-ro", "train_size": 8, "test_size": 8},
        "training": {"max_steps": 2},
        "recipes": list(recipes),
        "evaluation": {"parallel_evaluations": 2},
    }
    return plan(parse_sweep(spec | changes), "file:///results")


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
                self.runtime.submit(action.task)  # raises when slots are exceeded
        holding = [task for task in self.laid_out.tasks if task.slots and self.observe().is_active(task)]
        if self.runtime.capacity() == 1 and self.laid_out.server in holding:
            assert holding == [self.laid_out.server]

    def settle(self) -> dict[str, RunState]:
        for _ in range(400):
            if is_finished(self.laid_out, self.observe()):
                return {name: status.state for name, status in run_states(self.laid_out, self.observe()).items()}
            self.round()
            self.runtime.advance()
        raise AssertionError(f"no end: {run_states(self.laid_out, self.observe())}")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_happens_every_sweep_ends_in_the_same_state_and_nothing_is_done_twice(data: st.DataObject) -> None:
    placement = data.draw(st.sampled_from(["auto", "phased", "overlapped"]))
    laid_out = small_plan(
        ("bf16", "fp8", "fp4"), placement=placement, evaluation={"evaluate_base": data.draw(st.booleans())}
    )
    slots = data.draw(st.integers(1, 5))
    bad = data.draw(
        st.dictionaries(
            st.sampled_from(
                ["bf16-s0-train", "fp8-s0-train", "fp8-s0-eval", "base-eval", "serve", "prepare", "check-task"]
            ),
            st.sampled_from([how for how in Ending if how is not Ending.OK]),
            max_size=2,
        )
    )
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
