"""Rendering of scenarios in English."""

from dataclasses import dataclass

from surogate_bench_trainer.embedded.word_problems.scenario import (
    GAINS,
    Asks,
    Chain,
    Change,
    ChangeKind,
    Comparison,
    Container,
    Groups,
    Item,
    Multiple,
    Person,
    Purchase,
    Reading,
    RenderedScenario,
    Scenario,
    Step,
    TwoOwners,
)


@dataclass(frozen=True, slots=True)
class _Noun:
    singular: str
    plural: str

    def after(self, count: int) -> str:
        return self.singular if count == 1 else self.plural

    def counted(self, count: int) -> str:
        return f"{count} {self.after(count)}"

    def computed(self, step: Step) -> str:
        return f"{step} {self.after(step.result)}"


_MEN = ("Tom", "John", "Ben", "Sam", "Jack", "David")
_WOMEN = ("Anna", "Mary", "Lucy", "Emma", "Olivia", "Sara")
_ITEMS = {
    Item.APPLE: _Noun("apple", "apples"),
    Item.PENCIL: _Noun("pencil", "pencils"),
    Item.BOOK: _Noun("book", "books"),
    Item.MARBLE: _Noun("marble", "marbles"),
    Item.STAMP: _Noun("stamp", "stamps"),
    Item.CANDY: _Noun("candy", "candies"),
    Item.FLOWER: _Noun("flower", "flowers"),
    Item.BALLOON: _Noun("balloon", "balloons"),
    Item.NOTEBOOK: _Noun("notebook", "notebooks"),
    Item.ORANGE: _Noun("orange", "oranges"),
    Item.COOKIE: _Noun("cookie", "cookies"),
    Item.BUTTON: _Noun("button", "buttons"),
    Item.CARD: _Noun("card", "cards"),
    Item.PEAR: _Noun("pear", "pears"),
    Item.STICKER: _Noun("sticker", "stickers"),
    Item.ROSE: _Noun("rose", "roses"),
}
_CONTAINERS = {
    Container.BOX: _Noun("box", "boxes"),
    Container.BAG: _Noun("bag", "bags"),
    Container.BASKET: _Noun("basket", "baskets"),
    Container.SHELF: _Noun("shelf", "shelves"),
    Container.DRAWER: _Noun("drawer", "drawers"),
}
_DOLLAR = _Noun("dollar", "dollars")
_PAGE = _Noun("page", "pages")
_TIMES = {2: "twice", 3: "three times", 4: "four times"}


def render(scenario: Scenario) -> RenderedScenario:
    """Return question and working of ``scenario`` in English."""
    match scenario:
        case Chain():
            rendered = _chain(scenario)
        case Groups():
            rendered = _groups(scenario)
        case Comparison():
            rendered = _comparison(scenario)
        case Multiple():
            rendered = _multiple(scenario)
        case Purchase():
            rendered = _purchase(scenario)
        case Reading():
            rendered = _reading(scenario)
        case TwoOwners():
            rendered = _two_owners(scenario)
    return rendered


def _name(person: Person) -> str:
    return (_WOMEN if person.female else _MEN)[person.number]


def _pronoun(person: Person) -> str:
    return "she" if person.female else "he"


def _preposition(container: Container) -> str:
    return "on" if container is Container.SHELF else "in"


def _there(count: int) -> str:
    return "there is" if count == 1 else "there are"


def _chain(chain: Chain) -> RenderedScenario:
    name, noun = _name(chain.owner), _ITEMS[chain.item]
    start = noun.counted(chain.start)
    sentences = [f"There are {start} on {name}'s table." if chain.on_table else f"{name} has {start}."]
    subject = _pronoun(chain.owner).capitalize()
    for change in chain.changes:
        sentences.append(_change(change, subject, chain))
        # After a sentence that names another person, a pronoun would be ambiguous.
        others = change.kind in (ChangeKind.RECEIVES, ChangeKind.GIVES)
        subject = name if others else _pronoun(chain.owner).capitalize()
    sentences.append(f"How many {noun.plural} does {name} have now?")
    working = (
        _change_working(change.kind, name, noun.computed(step))
        for change, step in zip(chain.changes, chain.steps, strict=True)
    )
    return RenderedScenario(question=" ".join(sentences), working=tuple(working))


def _change(change: Change, subject: str, chain: Chain) -> str:
    noun = _ITEMS[chain.item]
    counted, more = noun.counted(change.amount), f"{change.amount} more {noun.after(change.amount)}"
    return {
        ChangeKind.BUYS: f"{subject} buys {more}.",
        ChangeKind.RECEIVES: f"{_name(chain.other)} gives {_name(chain.owner)} {more}.",
        ChangeKind.FINDS: f"{subject} finds {counted} at school.",
        ChangeKind.GIVES: f"{subject} gives {counted} to a friend.",
        ChangeKind.LOSES: f"{subject} loses {counted}.",
        ChangeKind.SELLS: f"{subject} sells {counted} at the market.",
    }[change.kind]


def _change_working(kind: ChangeKind, name: str, computed: str) -> str:
    if kind is ChangeKind.RECEIVES:
        return f"{name} now has {computed}."
    if kind is ChangeKind.LOSES:
        return f"{name} is left with {computed}."
    return f"After that {name} has {computed}." if kind in GAINS else f"After that {name} has {computed} left."


def _groups(groups: Groups) -> RenderedScenario:
    noun, container = _ITEMS[groups.item], _CONTAINERS[groups.container]
    where, other = _preposition(groups.container), _name(groups.other)
    containers, each = container.counted(groups.groups), noun.counted(groups.each)
    opening = (
        f"There are {containers} in the room. Each {container.singular} holds {each}."
        if groups.in_room
        else f"{_name(groups.owner)} has {containers} with {each} {where} each {container.singular}."
    )
    product, *rest = groups.steps
    working = [f"{where.capitalize()} the {container.plural} there are {noun.computed(product)}."]
    total = f"How many {noun.plural} are there in total?"
    if not rest:
        return RenderedScenario(question=f"{opening} {total}", working=tuple(working))
    (final,) = rest
    if groups.change > 0:
        event = f"{other} brings {groups.change} more {noun.after(groups.change)}. {total}"
        working.append(f"In total there are {noun.computed(final)}.")
    else:
        event = f"{other} takes {noun.counted(-groups.change)}. How many {noun.plural} are left?"
        working.append(f"{_there(final.result).capitalize()} {noun.computed(final)} left.")
    return RenderedScenario(question=f"{opening} {event}", working=tuple(working))


def _comparison(comparison: Comparison) -> RenderedScenario:
    noun, owner, other = _ITEMS[comparison.item], _name(comparison.owner), _name(comparison.other)
    size = abs(comparison.difference)
    word = "more" if comparison.difference > 0 else "fewer"
    facts = f"{owner} has {noun.counted(comparison.amount)}. {other} has {size} {word} {noun.after(size)} than {owner}."
    return _two_people(facts, comparison, noun)


def _multiple(multiple: Multiple) -> RenderedScenario:
    noun, owner, other = _ITEMS[multiple.item], _name(multiple.owner), _name(multiple.other)
    facts = (
        f"{owner} has {noun.counted(multiple.amount)}. "
        f"{other} has {_TIMES[multiple.factor]} as many {noun.plural} as {owner}."
    )
    return _two_people(facts, multiple, noun)


def _two_people(facts: str, scenario: Comparison | Multiple, noun: _Noun) -> RenderedScenario:
    owner, other = _name(scenario.owner), _name(scenario.other)
    working = [f"{other} has {noun.computed(scenario.steps[0])}."]
    final = noun.computed(scenario.steps[-1])
    if scenario.asks is Asks.OTHER:
        question = f"How many {noun.plural} does {other} have?"
    elif scenario.asks is Asks.TOGETHER:
        question = f"How many {noun.plural} do they have together?"
        working.append(f"Together they have {final}.")
    else:
        question = f"How many more {noun.plural} does {other} have than {owner}?"
        working.append(f"The difference is {final}.")
    return RenderedScenario(question=f"{facts} {question}", working=tuple(working))


def _purchase(purchase: Purchase) -> RenderedScenario:
    noun, pronoun = _ITEMS[purchase.item], _pronoun(purchase.buyer)
    facts = (
        f"{_name(purchase.buyer)} buys {noun.counted(purchase.count)}. "
        f"One {noun.singular} costs {_DOLLAR.counted(purchase.price)}."
    )
    working = [f"The {noun.plural} cost {_DOLLAR.computed(purchase.steps[0])}."]
    if purchase.paid is None:
        return RenderedScenario(question=f"{facts} How many dollars does {pronoun} pay?", working=tuple(working))
    question = f"{pronoun.capitalize()} pays with {_DOLLAR.counted(purchase.paid)}. How much change does {pronoun} get?"
    working.append(f"The change is {_DOLLAR.computed(purchase.steps[1])}.")
    return RenderedScenario(question=f"{facts} {question}", working=tuple(working))


def _reading(reading: Reading) -> RenderedScenario:
    name = _name(reading.reader)
    facts = f"{name} reads {_PAGE.counted(reading.pages)} each day for {reading.days} days."
    working = [f"In {reading.days} days {name} reads {_PAGE.computed(reading.steps[0])}."]
    if reading.total is None:
        return RenderedScenario(question=f"{facts} How many pages does {name} read?", working=tuple(working))
    left = reading.steps[1]
    working.append(f"{_there(left.result).capitalize()} {_PAGE.computed(left)} left.")
    question = f"The book has {_PAGE.counted(reading.total)}. How many pages are left to read?"
    return RenderedScenario(question=f"{facts} {question}", working=tuple(working))


def _two_owners(scenario: TwoOwners) -> RenderedScenario:
    noun, container = _ITEMS[scenario.item], _CONTAINERS[scenario.container]
    owner, other = _name(scenario.owner), _name(scenario.other)
    owners = f"{container.counted(scenario.owners[0])} with {noun.counted(scenario.owners[1])} each"
    others = f"{container.counted(scenario.others[0])} with {noun.counted(scenario.others[1])} each"
    first, second, total = (noun.computed(step) for step in scenario.steps)
    return RenderedScenario(
        question=f"{owner} has {owners}. {other} has {others}. How many {noun.plural} do they have together?",
        working=(f"{owner} has {first}.", f"{other} has {second}.", f"Together they have {total}."),
    )
