"""Packing and the order of batches."""

import random
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surogate_bench.specs import TrainingSpec
from surogate_bench_trainer.data.packing import pack
from surogate_bench_trainer.data.schedule import BatchSchedule, schedule_batches

CAPACITY = 64
LENGTHS = [random.Random(0).randint(5, 60) for _ in range(103)]


def training(**changes: object) -> TrainingSpec:
    fields = {"max_steps": 50, "max_length": CAPACITY, "micro_batch_size": 2, "gradient_accumulation_steps": 3}
    return TrainingSpec.model_validate(fields | changes)


@given(st.lists(st.integers(1, CAPACITY), max_size=80))
def test_packing_keeps_every_sample_once_and_overfills_no_row(lengths: list[int]) -> None:
    rows = pack(lengths, CAPACITY)
    assert sorted(chain.from_iterable(rows)) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= CAPACITY for row in rows)


@given(st.lists(st.integers(1, CAPACITY), max_size=80))
def test_a_new_row_is_begun_only_when_no_other_has_room(lengths: list[int]) -> None:
    rows = pack(lengths, CAPACITY)
    for number, row in enumerate(rows):
        for earlier in rows[:number]:
            before = sum(lengths[index] for index in earlier if index < row[0])
            assert before + lengths[row[0]] > CAPACITY


def test_samples_in_drawn_order_fill_rows_almost_completely() -> None:
    rng = random.Random(1)
    lengths = [rng.randint(60, 200) for _ in range(1000)]
    assert len(pack(lengths, 1024)) <= 1.03 * sum(lengths) / 1024


def test_packing_puts_each_sample_into_the_fullest_row_that_has_room() -> None:
    assert pack([6, 5, 3, 2, 4], 10) == [[0, 2], [1, 3], [4]]
    assert pack([6, 5, 4, 5, 1], 10) == [[0, 2], [1, 3], [4]]
    assert pack([3, 3, 3], 6) == [[0, 1], [2]]


def test_a_sample_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens"):
        pack([3, CAPACITY + 1], CAPACITY)


def test_every_epoch_trains_on_every_sample_once_in_another_order() -> None:
    schedule = schedule_batches(LENGTHS, training(), seed=3)
    epochs = [
        [
            index
            for step in range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
            for index in chain.from_iterable(schedule.micro_batches(step))
        ]
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(len(LENGTHS))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    def order(seed: int) -> list[list[list[int]]]:
        schedule = schedule_batches(LENGTHS, training(), seed=seed)
        return [schedule.micro_batches(step) for step in range(20)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_step_has_the_configured_micro_batches_of_the_configured_rows() -> None:
    schedule = schedule_batches(LENGTHS, training(), seed=0)
    first = schedule.micro_batches(0)
    assert len(first) == 3
    rows = {tuple(row) for row in schedule.rows}
    assert all(tuple(batch[: len(row)]) in rows for batch in first for row in [_row_of(schedule, batch[0])])


def _row_of(schedule: BatchSchedule, index: int) -> list[int]:
    return next(row for row in schedule.rows if index in row)


def test_without_packing_every_row_is_one_sample() -> None:
    schedule = schedule_batches(LENGTHS, training(packing=False), seed=0)
    assert schedule.rows == [[index] for index in range(len(LENGTHS))]
    assert [len(batch) for batch in schedule.micro_batches(0)] == [2, 2, 2]


@pytest.mark.parametrize(("epochs", "expected"), [(1, 18), (2, 36), (0.5, 9), (0.01, 1)])
def test_epochs_become_optimizer_steps_rounded_up(epochs: float, expected: int) -> None:
    spec = training(packing=False, max_steps=None, epochs=epochs)
    schedule = schedule_batches(LENGTHS, spec, seed=0)
    assert schedule.steps_per_epoch == 18  # 103 rows, 6 a step
    assert schedule.total_steps == expected


def test_the_last_step_of_an_epoch_takes_the_rows_that_are_left() -> None:
    schedule = schedule_batches(LENGTHS, training(packing=False), seed=0)
    assert [len(batch) for batch in schedule.micro_batches(17)] == [1]  # 103 = 17 x 6 + 1
