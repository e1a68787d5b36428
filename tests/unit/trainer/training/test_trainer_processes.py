"""Several processes that train one run: which one computes what, and how their ends are distinguished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surogate_bench.errors import ConfigError, ExitCode
from surogate_bench.processes.progress import Termination
from surogate_bench_trainer.data.shares import noise_seed, share_of
from surogate_bench_trainer.processes import RankEnd, failure_of, threads_of_each, visible_device

LOST = Termination(reason="PeerLostError", message="the others have ended")


@given(processes=st.integers(1, 16), count=st.integers(0, 200))
def test_every_micro_batch_is_computed_by_exactly_one_process_and_shares_differ_by_at_most_one(
    processes: int, count: int
) -> None:
    shares = [share_of(rank, processes, count) for rank in range(processes)]
    assert sorted(number for share in shares for number in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 64)), unique=True))
def test_each_micro_batch_draws_with_a_seed_of_its_own_that_a_generator_takes(
    places: list[tuple[int, int, int]],
) -> None:
    seeds = [noise_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [noise_seed(*place) for place in places]


@pytest.mark.parametrize(
    ("visible", "devices"), [(None, ["0", "1"]), ("", ["", ""]), ("-1", ["", ""]), ("3, GPU-a,5", ["3", "GPU-a"])]
)
def test_each_process_gets_one_gpu_or_none_where_none_is_visible(visible: str | None, devices: list[str]) -> None:
    assert [visible_device(visible, rank, 2) for rank in range(2)] == devices


def test_fewer_visible_gpus_than_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.gpus: only 1 GPUs are visible .* \(got 2\)\. Give"):
        visible_device("3", 0, 2)


@pytest.mark.parametrize(("threads", "processes", "each"), [(8, 2, 4), (2, 4, 1), (7, 3, 2)])
def test_processes_divide_the_threads_of_a_training(threads: int, processes: int, each: int) -> None:
    assert threads_of_each(threads, processes) == each


@pytest.mark.parametrize(
    ("ends", "reason", "code", "message"),
    [
        ([(75, LOST), (-9, None)], "Killed", ExitCode.FAILED, "process 1 of 2 was killed by SIGKILL (the kernel"),
        ([(75, LOST), (None, None)], "PeerLostError", ExitCode.TRANSIENT, "process 1 of 2 does not respond"),
        (
            [(75, LOST), (3, Termination(reason="UnsupportedRecipeError", message="no engine"))],
            "UnsupportedRecipeError", ExitCode.UNSUPPORTED, "process 1 of 2: no engine",
        ),
        (
            [(-15, None), (4, Termination(reason="PermanentError", message="diverged"))],
            "PermanentError", ExitCode.PERMANENT, "process 1 of 2: diverged",
        ),
        ([(75, None), (75, None)], "Killed", ExitCode.TRANSIENT, "process 0 of 2 received SIGTERM"),
        ([(0, None), (1, None)], "Killed", ExitCode.FAILED, "process 1 of 2 ended with exit code 1"),
        ([(75, LOST), (75, LOST)], "PeerLostError", ExitCode.TRANSIENT, "process 0 of 2: the others have ended"),
    ],
)  # fmt: skip
def test_the_process_that_failed_by_itself_gives_the_reason(
    ends: list[tuple[int | None, Termination | None]], reason: str, code: ExitCode, message: str
) -> None:
    failure = failure_of([RankEnd(rank, *end) for rank, end in enumerate(ends)])
    assert (failure.reason, failure.exit_code) == (reason, code)
    assert str(failure).startswith(message)
