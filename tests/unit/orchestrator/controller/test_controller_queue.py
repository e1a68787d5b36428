"""The queue: each name once, in its time, and later after every failure."""

import threading

import pytest
from waiting import PATIENCE_S

from surogate_bench_orchestrator.controller.queue.work_queue import WorkQueue


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def queue(time: Time) -> WorkQueue:
    return WorkQueue(gap_s=0.5, clock=time)


def test_a_name_added_twice_is_taken_once(queue: WorkQueue) -> None:
    queue.add("a")
    queue.add("a")
    assert queue.take(0) == "a"
    assert queue.take(0) is None


def test_names_come_in_the_order_in_which_they_are_due(queue: WorkQueue, time: Time) -> None:
    queue.add("later", after_s=2)
    queue.add("soon", after_s=1)
    assert queue.take(0) is None
    time.now = 3
    assert (queue.take(0), queue.take(0)) == ("soon", "later")


def test_an_earlier_time_wins(queue: WorkQueue) -> None:
    queue.add("a", after_s=100)
    queue.add("a")
    assert queue.take(0) == "a"


def test_a_name_in_work_is_not_taken_again_until_it_is_done(queue: WorkQueue, time: Time) -> None:
    queue.add("a")
    assert queue.take(0) == "a"
    queue.add("a")
    time.now = 10
    assert queue.take(0) is None
    queue.done("a", again_after_s=None)
    assert queue.take(0) == "a"


def test_a_burst_of_changes_is_one_pass(queue: WorkQueue, time: Time) -> None:
    queue.add("a")
    assert queue.take(0) == "a"
    queue.done("a", again_after_s=5)
    queue.add("a")
    time.now = 0.4
    assert queue.take(0) is None
    time.now = 0.5
    assert queue.take(0) == "a"


def test_a_name_comes_back_by_itself_when_asked_to(queue: WorkQueue, time: Time) -> None:
    queue.add("a")
    assert queue.take(0) == "a"
    queue.done("a", again_after_s=5)
    time.now = 4.9
    assert queue.take(0) is None
    time.now = 5
    assert queue.take(0) == "a"


def test_every_failure_waits_longer_up_to_a_minute_and_success_forgets_them(queue: WorkQueue, time: Time) -> None:
    queue.add("a")
    delays = []
    for _ in range(8):
        assert queue.take(0) == "a"
        delays.append(queue.failed("a"))
        time.now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert queue.take(0) == "a"
    queue.done("a", again_after_s=0)
    time.now += 1
    assert queue.take(0) == "a"
    assert queue.failed("a") == 1


def test_how_long_the_oldest_work_goes_on_is_known(queue: WorkQueue, time: Time) -> None:
    assert queue.longest_work_s() == 0
    queue.add("a")
    assert queue.take(0) == "a"
    time.now = 7
    assert queue.longest_work_s() == 7


def test_closing_wakes_whoever_waits() -> None:
    queue = WorkQueue(gap_s=0.5)
    taken: list[str | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(PATIENCE_S)))
    thread.start()
    queue.close()
    thread.join(PATIENCE_S)
    assert taken == [None]


def test_a_name_added_from_another_thread_is_taken_at_once() -> None:
    queue = WorkQueue(gap_s=0.5)
    taken: list[str | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(PATIENCE_S)))
    thread.start()
    queue.add("a")
    thread.join(PATIENCE_S)
    assert taken == ["a"]
