"""What every runtime promises, checked on the in-memory one and on real processes."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from stand_ins.runtime import Ending, MemoryRuntime
from sweeps import small_sweep
from waiting import PATIENCE_S

from surogate_bench.errors import PermanentError
from surogate_bench.stages.requests import ServeRequest, TrainRequest
from surogate_bench_orchestrator.domain.plan import plan
from surogate_bench_orchestrator.domain.tasks import Observation, Phase, Task
from surogate_bench_orchestrator.ports import Runtime
from surogate_bench_orchestrator.runtimes.local.machine import Allotment
from surogate_bench_orchestrator.runtimes.local.runtime import LocalRuntime
from surogate_bench_orchestrator.sweep.clock import SystemClock

FAKE_SERVICE = Path(__file__).with_name("fake_service.py")
SWEEP = small_sweep(name="contract")


ENDINGS = {
    "crash": Ending.CRASH,
    "bad-input": Ending.BAD_INPUT,
    "unsupported": Ending.UNSUPPORTED,
    "hang": Ending.HANG,
}


@dataclass
class Harness:
    """A runtime, and a way to let it work."""

    runtime: Runtime
    step: Callable[[], None]
    store: str

    def task(self, behaviour: str, *, number: int = 0, **changes: Any) -> Task:
        train = plan(SWEEP, self.store).training_order[0]
        assert isinstance(train.request, TrainRequest)
        request = train.request.model_copy(update={"recipe": behaviour, "seed": number})
        return replace(train, request=request, name=f"{behaviour}-{number}", max_attempts=2, **changes)

    def server(self, **changes: Any) -> Task:
        return replace(plan(SWEEP, self.store).server, **changes)

    def see(self, task: Task) -> Observation:
        return self.runtime.observe([task.name])[task.name]

    def until(self, task: Task, *phases: Phase) -> Observation:
        deadline = time.monotonic() + PATIENCE_S
        while (observed := self.see(task)).phase not in phases:
            assert time.monotonic() < deadline, f"{task.name} is {observed} and not {phases}"
            self.step()
        return observed

    def end(self, task: Task) -> Observation:
        self.runtime.submit(task)
        return self.until(task, Phase.SUCCEEDED, Phase.FAILED)


def ending_of(task: Task, attempt: int) -> Ending:
    """Play the behaviours of fake_service.py."""
    if not isinstance(task.request, TrainRequest):
        return Ending.OK
    if task.request.recipe.endswith("-once"):
        return Ending.CRASH if attempt == 1 else Ending.OK
    return ENDINGS.get(task.request.recipe, Ending.OK)


@pytest.fixture(params=["memory", "local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    store = (tmp_path / "store").as_uri()
    if request.param == "kubernetes":
        yield request.getfixturevalue("kubernetes_harness")
        return
    if request.param == "memory":
        memory = MemoryRuntime(slots=2, ending=ending_of)
        yield Harness(memory, memory.advance, store)
        return
    allotment = Allotment(slots=2, side_by_side=2, threads=1)
    command = [sys.executable, str(FAKE_SERVICE)]
    with LocalRuntime(tmp_path / "state", allotment, SystemClock(), command=lambda _: command) as local:
        local.take_over()

        def step() -> None:
            time.sleep(0.02)
            local.advance()

        yield Harness(local, step, store)


def test_a_task_never_submitted_is_absent(harness: Harness) -> None:
    assert harness.see(harness.task("ok")).phase is Phase.ABSENT


def test_a_submitted_task_runs_and_succeeds_at_the_first_attempt(harness: Harness) -> None:
    observed = harness.end(harness.task("ok"))
    assert (observed.phase, observed.attempt) == (Phase.SUCCEEDED, 1)


def test_submitting_a_name_again_does_not_run_it_again(harness: Harness) -> None:
    task = harness.task("ok")
    harness.end(task)
    harness.runtime.submit(task)
    observed = harness.see(task)
    assert (observed.phase, observed.attempt) == (Phase.SUCCEEDED, 1)


def test_submitting_a_running_task_leaves_it_running(harness: Harness) -> None:
    server = harness.server()
    harness.runtime.submit(server)
    harness.until(server, Phase.RUNNING)
    harness.runtime.submit(server)
    assert harness.see(server).attempt == 1


@pytest.mark.parametrize("behaviour", ["killed-once", "busy-once"])
def test_an_attempt_that_fails_is_followed_by_another(harness: Harness, behaviour: str) -> None:
    observed = harness.end(harness.task(behaviour))
    assert (observed.phase, observed.attempt) == (Phase.SUCCEEDED, 2)


def test_a_task_whose_attempts_all_crash_has_failed_with_a_reason(harness: Harness) -> None:
    observed = harness.end(harness.task("crash"))
    assert (observed.phase, observed.attempt) == (Phase.FAILED, 2)
    assert observed.reason


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("bad-input", "ConfigError"), ("unsupported", "UnsupportedRecipeError")]
)
def test_what_no_attempt_can_mend_fails_at_once(harness: Harness, behaviour: str, reason: str) -> None:
    observed = harness.end(harness.task(behaviour))
    assert (observed.phase, observed.attempt, observed.reason) == (Phase.FAILED, 1, reason)
    assert observed.message


def test_a_task_past_its_deadline_is_stopped_and_says_so(harness: Harness) -> None:
    observed = harness.end(harness.task("hang", timeout_s=0.5))
    assert (observed.phase, observed.reason) == (Phase.FAILED, "DeadlineExceeded")


def test_a_server_runs_until_it_is_deleted(harness: Harness) -> None:
    server = harness.server()
    harness.runtime.submit(server)
    harness.until(server, Phase.RUNNING)
    for _ in range(3):
        harness.step()
    assert harness.see(server).phase is Phase.RUNNING
    harness.runtime.delete(server.name)
    assert harness.see(server).phase is Phase.ABSENT


def test_a_server_has_an_address_once_submitted(harness: Harness) -> None:
    server = harness.server()
    with pytest.raises(PermanentError, match=server.name):
        harness.runtime.endpoint(server.name)
    harness.runtime.submit(server)
    address = harness.runtime.endpoint(server.name)
    harness.until(server, Phase.RUNNING)
    assert address == harness.runtime.endpoint(server.name)
    assert address.startswith("http://")


def test_deleting_what_is_not_there_does_nothing(harness: Harness) -> None:
    harness.runtime.delete("never-submitted")
    assert harness.runtime.observe(["never-submitted"])["never-submitted"].phase is Phase.ABSENT


def test_a_deleted_task_can_be_submitted_anew(harness: Harness) -> None:
    task = harness.task("bad-input")
    harness.end(task)
    harness.runtime.delete(task.name)
    observed = harness.end(task)
    assert (observed.phase, observed.attempt) == (Phase.FAILED, 1)


def test_two_tasks_run_at_the_same_time_and_a_third_finds_no_slot(harness: Harness) -> None:
    assert harness.runtime.capacity() == 2
    first, second, third = (harness.task("hang", number=number) for number in range(3))
    harness.runtime.submit(first)
    harness.runtime.submit(second)
    assert all(observed.phase.is_active for observed in harness.runtime.observe([first.name, second.name]).values())
    with pytest.raises(PermanentError, match="slot"):
        harness.runtime.submit(third)


def test_a_task_that_ended_gives_its_slot_back(harness: Harness) -> None:
    harness.runtime.submit(harness.task("hang"))
    harness.end(harness.task("ok"))
    harness.runtime.submit(harness.task("ok", number=1))


def test_logs_are_kept_over_attempts(harness: Harness) -> None:
    task = harness.task("killed-once")
    assert harness.runtime.logs(task.name, tail=5) == ""
    harness.end(task)
    assert len(harness.runtime.logs(task.name, tail=5).splitlines()) >= 2
    assert len(harness.runtime.logs(task.name, tail=1).splitlines()) == 1


def test_rendering_shows_the_request_and_submits_nothing(harness: Harness) -> None:
    server = harness.server()
    rendered = harness.runtime.render(server)
    assert rendered["name"] == server.name
    assert ServeRequest.model_validate(rendered["request"]).sweep == SWEEP
    assert harness.see(server).phase is Phase.ABSENT
    assert rendered == harness.runtime.render(server)
