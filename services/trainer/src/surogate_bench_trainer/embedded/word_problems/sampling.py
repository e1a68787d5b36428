"""Random scenarios whose numbers a model of a million parameters can learn: sums and differences up to 100."""

from collections.abc import Callable
from random import Random

from surogate_bench_trainer.embedded.word_problems.scenario import (
    GAINS,
    LOSSES,
    PEOPLE,
    Asks,
    Chain,
    Change,
    Comparison,
    Container,
    Groups,
    Item,
    Multiple,
    Person,
    Purchase,
    Reading,
    Scenario,
    TwoOwners,
)

_LARGEST_IN_CHAIN = 40
_SMALLEST_TO_LOSE_FROM = 6
_LEAST_ROOM_TO_GAIN = 4
_LARGEST_CHANGE = 20
_ITEMS = tuple(Item)
_CONTAINERS = tuple(Container)
_NOTES = (20, 50, 100)


def sample_scenario(rng: Random) -> Scenario:
    """Draw one scenario; equal states of ``rng`` give equal scenarios."""
    return rng.choice(_SAMPLERS)(rng)


def _two_people(rng: Random) -> tuple[Person, Person]:
    first, second = rng.sample(PEOPLE, 2)
    return first, second


def _change(rng: Random, value: int) -> Change:
    room = _LARGEST_IN_CHAIN - value
    gains = value < _SMALLEST_TO_LOSE_FROM or (room >= _LEAST_ROOM_TO_GAIN and rng.choice((True, False)))
    if gains:
        return Change(kind=rng.choice(GAINS), amount=rng.randint(2, min(_LARGEST_CHANGE, room)))
    return Change(kind=rng.choice(LOSSES), amount=rng.randint(2, min(_LARGEST_CHANGE, value - 1)))


def _chain(rng: Random) -> Chain:
    owner, other = _two_people(rng)
    start = value = rng.randint(5, _LARGEST_IN_CHAIN // 2)
    changes: list[Change] = []
    for _ in range(rng.randint(1, 3)):
        changes.append(_change(rng, value))
        value += changes[-1].signed
    return Chain(
        owner=owner,
        other=other,
        item=rng.choice(_ITEMS),
        start=start,
        on_table=rng.choice((True, False, False, False)),
        changes=tuple(changes),
    )


def _groups(rng: Random) -> Groups:
    owner, other = _two_people(rng)
    groups, each = rng.randint(2, 9), rng.randint(2, 9)
    taken = -rng.randint(2, min(_LARGEST_CHANGE, groups * each - 1))
    brought = rng.randint(2, _LARGEST_CHANGE)
    return Groups(
        owner=owner,
        other=other,
        item=rng.choice(_ITEMS),
        container=rng.choice(_CONTAINERS),
        in_room=rng.choice((True, False)),
        groups=groups,
        each=each,
        change=rng.choice((taken, brought, 0)),
    )


def _comparison(rng: Random) -> Comparison:
    owner, other = _two_people(rng)
    amount = rng.randint(5, _LARGEST_IN_CHAIN // 2)
    more, fewer = rng.randint(2, 15), -rng.randint(2, min(15, amount - 2))
    return Comparison(
        owner=owner,
        other=other,
        item=rng.choice(_ITEMS),
        amount=amount,
        difference=rng.choice((more, fewer)),
        asks=rng.choice((Asks.OTHER, Asks.TOGETHER)),
    )


def _multiple(rng: Random) -> Multiple:
    owner, other = _two_people(rng)
    return Multiple(
        owner=owner,
        other=other,
        item=rng.choice(_ITEMS),
        amount=rng.randint(3, 12),
        factor=rng.choice((2, 3, 4)),
        asks=rng.choice(tuple(Asks)),
    )


def _purchase(rng: Random) -> Purchase:
    count, price = rng.randint(2, 9), rng.randint(2, 9)
    cost = count * price
    note = min(note for note in _NOTES if note > cost)
    return Purchase(
        buyer=rng.choice(PEOPLE),
        item=rng.choice(_ITEMS),
        count=count,
        price=price,
        paid=rng.choice((None, note, cost + rng.randint(2, 15))),
    )


def _reading(rng: Random) -> Reading:
    pages, days = rng.randint(2, 9), rng.randint(2, 9)
    total = pages * days + rng.randint(2, 18)
    return Reading(reader=rng.choice(PEOPLE), pages=pages, days=days, total=rng.choice((None, total)))


def _two_owners(rng: Random) -> TwoOwners:
    owner, other = _two_people(rng)
    return TwoOwners(
        owner=owner,
        other=other,
        item=rng.choice(_ITEMS),
        container=rng.choice(_CONTAINERS),
        owners=(rng.randint(2, 6), rng.randint(2, 8)),
        others=(rng.randint(2, 6), rng.randint(2, 8)),
    )


# Chains vary most (kinds, order, one to three steps), so they are drawn twice as often.
_SAMPLERS: tuple[Callable[[Random], Scenario], ...] = (
    _chain,
    _chain,
    _groups,
    _comparison,
    _multiple,
    _purchase,
    _reading,
    _two_owners,
)
