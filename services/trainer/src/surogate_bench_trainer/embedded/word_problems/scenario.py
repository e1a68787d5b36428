"""The content of a word problem, independent of the language it is rendered in.

Every scenario has its solution: one to three arithmetic steps, the last of which yields the answer.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, TypeAlias


class Item(Enum):
    """A thing that people count, own, buy and give away."""

    APPLE = auto()
    PENCIL = auto()
    BOOK = auto()
    MARBLE = auto()
    STAMP = auto()
    CANDY = auto()
    FLOWER = auto()
    BALLOON = auto()
    NOTEBOOK = auto()
    ORANGE = auto()
    COOKIE = auto()
    BUTTON = auto()
    CARD = auto()
    PEAR = auto()
    STICKER = auto()
    ROSE = auto()


class Container(Enum):
    """A thing that holds items."""

    BOX = auto()
    BAG = auto()
    BASKET = auto()
    SHELF = auto()
    DRAWER = auto()


class ChangeKind(Enum):
    """How the number of a person's items changes."""

    BUYS = auto()
    RECEIVES = auto()
    FINDS = auto()
    GIVES = auto()
    LOSES = auto()
    SELLS = auto()


GAINS = (ChangeKind.BUYS, ChangeKind.RECEIVES, ChangeKind.FINDS)
LOSSES = (ChangeKind.GIVES, ChangeKind.LOSES, ChangeKind.SELLS)


class Asks(Enum):
    """The question of a problem about two people."""

    OTHER = auto()
    TOGETHER = auto()
    DIFFERENCE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A person; each language has its own name for the ``number``-th woman or man."""

    number: int
    female: bool


NAMES_PER_GENDER = 6
PEOPLE = tuple(Person(number=n, female=f) for f in (False, True) for n in range(NAMES_PER_GENDER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of arithmetic, written ``left operator right = result`` without spaces."""

    left: int
    operator: Literal["+", "-", "*"]
    right: int

    @property
    def result(self) -> int:
        """Value of the expression."""
        if self.operator == "+":
            return self.left + self.right
        if self.operator == "-":
            return self.left - self.right
        return self.left * self.right

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


def _signed_step(left: int, change: int) -> Step:
    return Step(left=left, operator="+" if change > 0 else "-", right=abs(change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A gain or loss of ``amount`` items."""

    kind: ChangeKind
    amount: int

    @property
    def signed(self) -> int:
        """The amount, negative for a loss."""
        return self.amount if self.kind in GAINS else -self.amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The owner starts with some items, which one to three changes alter; how many are there in the end?"""

    owner: Person
    other: Person
    item: Item
    start: int
    on_table: bool
    changes: tuple[Change, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """One step for each change."""
        steps: list[Step] = []
        value = self.start
        for change in self.changes:
            steps.append(_signed_step(value, change.signed))
            value = steps[-1].result
        return tuple(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """``groups`` containers of ``each`` items; then the other person brings (``change`` > 0) or takes (< 0) some."""

    owner: Person
    other: Person
    item: Item
    container: Container
    in_room: bool
    groups: int
    each: int
    change: int

    @property
    def steps(self) -> tuple[Step, ...]:
        """The product and, if there is a change, its effect."""
        product = Step(left=self.groups, operator="*", right=self.each)
        return (product, _signed_step(product.result, self.change)) if self.change else (product,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The other person has ``difference`` items more (> 0) or fewer (< 0) than the owner's ``amount``."""

    owner: Person
    other: Person
    item: Item
    amount: int
    difference: int
    asks: Literal[Asks.OTHER, Asks.TOGETHER]

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the other person has and, if asked, the sum."""
        others = _signed_step(self.amount, self.difference)
        if self.asks is Asks.OTHER:
            return (others,)
        return others, Step(left=self.amount, operator="+", right=others.result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiple:
    """The other person has ``factor`` times the owner's ``amount``."""

    owner: Person
    other: Person
    item: Item
    amount: int
    factor: Literal[2, 3, 4]
    asks: Asks

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the other person has and, if asked, the sum or the difference."""
        others = Step(left=self.amount, operator="*", right=self.factor)
        if self.asks is Asks.OTHER:
            return (others,)
        if self.asks is Asks.TOGETHER:
            return others, Step(left=self.amount, operator="+", right=others.result)
        return others, Step(left=others.result, operator="-", right=self.amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """``count`` items at ``price`` each: the cost, or the change out of ``paid``."""

    buyer: Person
    item: Item
    count: int
    price: int
    paid: int | None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The cost and, if an amount was paid, the change."""
        cost = Step(left=self.count, operator="*", right=self.price)
        return (cost,) if self.paid is None else (cost, Step(left=self.paid, operator="-", right=cost.result))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """``pages`` a day for ``days`` days: the pages read, or those left of a book of ``total`` pages."""

    reader: Person
    pages: int
    days: int
    total: int | None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The pages read and, if the book's length is known, those left."""
        read = Step(left=self.days, operator="*", right=self.pages)
        return (read,) if self.total is None else (read, Step(left=self.total, operator="-", right=read.result))


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoOwners:
    """Two people own (containers, items in each); how many items do they have together?"""

    owner: Person
    other: Person
    item: Item
    container: Container
    owners: tuple[int, int]
    others: tuple[int, int]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Each person's product, then the sum."""
        first = Step(left=self.owners[0], operator="*", right=self.owners[1])
        second = Step(left=self.others[0], operator="*", right=self.others[1])
        return first, second, Step(left=first.result, operator="+", right=second.result)


Scenario: TypeAlias = Chain | Groups | Comparison | Multiple | Purchase | Reading | TwoOwners


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedScenario:
    """The text of a scenario: its question, and one line of working for each step."""

    question: str
    working: tuple[str, ...]
