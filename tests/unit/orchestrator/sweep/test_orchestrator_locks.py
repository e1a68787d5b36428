"""One orchestrator at a time per sweep and store."""

import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins.clock import FakeClock

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.layout import SweepLayout
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.sweep import locks
from surogate_bench_orchestrator.sweep.locks import (
    FileLock,
    Lease,
    SweepBusyError,
    SweepLock,
    hold,
    resource_lease,
    sweep_lock,
)

LAYOUT = SweepLayout("small", "0123456789ab")


class Messages(list[str]):
    """Messages that were sent."""

    def __call__(self, message: str) -> None:
        self.append(message)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["file", "lease"])
def pair(request: pytest.FixtureRequest, store: ObjectStore, clock: FakeClock) -> tuple[SweepLock, SweepLock]:
    """Two processes' views of one lock."""
    if request.param == "file":
        return sweep_lock(store, LAYOUT, clock), sweep_lock(store, LAYOUT, clock)
    return Lease(store, ".locks/small", clock), Lease(store, ".locks/small", clock)


def test_a_local_store_is_locked_by_the_kernel_and_a_remote_one_by_a_lease(
    store: ObjectStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(sweep_lock(store, LAYOUT, clock), FileLock)
    monkeypatch.setenv("AWS_REGION", "nowhere")
    assert isinstance(sweep_lock(open_store("s3://bucket/prefix"), LAYOUT, clock), Lease)


def test_only_one_of_two_gets_it_and_the_other_reads_the_holder(pair: tuple[SweepLock, SweepLock]) -> None:
    first, second = pair
    assert first.holder() is None
    assert first.try_acquire()
    assert not second.try_acquire()
    holder = second.holder()
    assert holder is not None
    assert holder == first.holder()
    assert f"process {holder.pid} on {holder.host}" in str(holder)


def test_it_is_free_again_once_released(pair: tuple[SweepLock, SweepLock]) -> None:
    first, second = pair
    assert first.try_acquire()
    first.renew()
    first.release()
    assert second.holder() is None
    assert second.try_acquire()
    assert not first.try_acquire()
    first.release()  # a second release must not free what is the other's now
    assert not first.try_acquire()


def test_the_second_is_notified_once_of_the_holder_and_waits(
    pair: tuple[SweepLock, SweepLock], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    assert first.try_acquire()
    messages = Messages()
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            first.release()

    monkeypatch.setattr(clock, "sleep", nap)
    with hold(second, clock, wait=True, notify=messages, check=lambda: None):
        assert not first.try_acquire()
    assert len(naps) == 3
    assert len(messages) == 1
    assert "waiting" in messages[0]
    assert first.try_acquire()


def test_without_waiting_the_second_fails_and_names_the_holder(
    pair: tuple[SweepLock, SweepLock], clock: FakeClock
) -> None:
    first, second = pair
    assert first.try_acquire()
    messages = Messages()
    with (
        pytest.raises(SweepBusyError, match=r"process \d+ on .*--no-wait"),
        hold(second, clock, wait=False, notify=messages, check=lambda: None),
    ):
        pass
    assert messages == []


def test_waiting_ends_when_the_user_interrupts(pair: tuple[SweepLock, SweepLock], clock: FakeClock) -> None:
    first, second = pair
    assert first.try_acquire()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), hold(second, clock, wait=True, notify=Messages(), check=interrupt):
        pass


def test_a_file_lock_ends_with_its_holder_however_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "small.lock"
    program = (
        "import os, sys, pathlib, signal\n"
        "from surogate_bench_orchestrator.sweep.locks import FileLock\n"
        "lock = FileLock(pathlib.Path(sys.argv[1]))\n"
        "assert lock.try_acquire()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    lock = FileLock(path)
    assert lock.holder() is None
    assert lock.try_acquire()


def test_a_lock_in_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="store"):
        FileLock(tmp_path / "file" / "locks" / "small.lock").try_acquire()


def expire_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LEASE_DURATION_S", -1.0)


def test_an_expired_lease_is_taken_over_and_its_old_holder_stops(
    store: ObjectStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Lease(store, ".locks/small", clock), Lease(store, ".locks/small", clock)
    with monkeypatch.context() as patch:
        expire_at_once(patch)
        assert old.try_acquire()
    assert new.try_acquire()
    old.renew()  # too soon to ask the store
    clock.time += 60
    with pytest.raises(PermanentError, match="taken over by process"):
        old.renew()
    old.release()
    assert not old.try_acquire()


def test_a_lease_is_renewed_before_it_expires(
    store: ObjectStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = Lease(store, ".locks/small", clock), Lease(store, ".locks/small", clock)
    with monkeypatch.context() as patch:
        expire_at_once(patch)
        assert mine.try_acquire()
    clock.time += 60
    mine.renew()
    assert not other.try_acquire()
    assert len(store.list(".locks/")) == 1


def test_of_two_that_take_over_at_once_one_wins(
    store: ObjectStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lease(store, ".locks/small", clock), Lease(store, ".locks/small", clock)
    create = ObjectStore.create

    def beaten(self: ObjectStore, key: str, data: bytes) -> bool:
        monkeypatch.setattr(ObjectStore, "create", create)
        assert second.try_acquire()
        return create(self, key, data)

    monkeypatch.setattr(ObjectStore, "create", beaten)
    assert not first.try_acquire()


def test_a_lease_that_cannot_be_read_does_not_block(store: ObjectStore, clock: FakeClock) -> None:
    store.put(".locks/small/00000004.json", b"not JSON")
    lease = Lease(store, ".locks/small", clock)
    assert lease.holder() is None
    assert lease.try_acquire()
    assert [info.key for info in store.list(".locks/")] == [".locks/small/00000005.json"]


def test_a_lease_is_taken_over_at_once_by_whoever_works_for_the_same_resource(
    store: ObjectStore, clock: FakeClock
) -> None:
    def replica() -> SweepLock:
        return resource_lease(store, LAYOUT, clock, uid="a-uid", title="RecipeSweep lab/small")

    killed, successor, other = replica(), replica(), Lease(store, ".locks/small-0123456789ab", clock)
    assert killed.try_acquire()
    assert not other.try_acquire()
    assert successor.try_acquire()
    assert str(other.holder()).startswith("RecipeSweep lab/small on ")
    successor.release()
    assert other.try_acquire()
    assert not successor.try_acquire()
