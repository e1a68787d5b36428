"""Rendering of scenarios in Romanian."""

from surogate_bench_trainer.embedded.word_problems.romanian_grammar import (
    Noun,
    capitalized,
    dative,
    difference,
    more,
    pronoun,
    the_two,
    times,
)
from surogate_bench_trainer.embedded.word_problems.romanian_lexicon import (
    CONTAINERS,
    DAY,
    ITEMS,
    LEU,
    PAGE,
    name_of,
    preposition,
)
from surogate_bench_trainer.embedded.word_problems.scenario import (
    GAINS,
    Asks,
    Chain,
    Change,
    ChangeKind,
    Comparison,
    Groups,
    Multiple,
    Person,
    Purchase,
    Reading,
    RenderedScenario,
    Scenario,
    Step,
    TwoOwners,
)


def render(scenario: Scenario) -> RenderedScenario:
    """Return question and working of ``scenario`` in Romanian."""
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


def _pronoun(person: Person) -> str:
    return pronoun(female=person.female)


def _dative(person: Person) -> str:
    return dative(name_of(person), female=person.female)


def _computed(step: Step, noun: Noun) -> str:
    return f"{step} {noun.after(step.result)}"


def _remain(count: int) -> str:
    return "rămâne" if count == 1 else "rămân"


def _chain(chain: Chain) -> RenderedScenario:
    name, noun = name_of(chain.owner), ITEMS[chain.item]
    start = noun.counted(chain.start)
    sentences = [f"Pe masa {_dative(chain.owner)} sunt {start}." if chain.on_table else f"{name} are {start}."]
    subject = capitalized(_pronoun(chain.owner))
    for change in chain.changes:
        sentences.append(_change(change, subject, chain))
        # After a sentence that names another person, a pronoun would be ambiguous.
        others = change.kind in (ChangeKind.RECEIVES, ChangeKind.GIVES)
        subject = name if others else capitalized(_pronoun(chain.owner))
    sentences.append(f"{capitalized(noun.how_many)} are {name} acum?")
    working = (
        _change_working(change.kind, chain, step) for change, step in zip(chain.changes, chain.steps, strict=True)
    )
    return RenderedScenario(question=" ".join(sentences), working=tuple(working))


def _change(change: Change, subject: str, chain: Chain) -> str:
    counted = ITEMS[chain.item].counted(change.amount)
    return {
        ChangeKind.BUYS: f"{subject} cumpără încă {counted}.",
        ChangeKind.RECEIVES: f"{name_of(chain.other)} îi dă {_dative(chain.owner)} încă {counted}.",
        ChangeKind.FINDS: f"{subject} găsește {counted} la școală.",
        ChangeKind.GIVES: f"{subject} dă {counted} unui prieten.",
        ChangeKind.LOSES: f"{subject} pierde {counted}.",
        ChangeKind.SELLS: f"{subject} vinde {counted} la piață.",
    }[change.kind]


def _change_working(kind: ChangeKind, chain: Chain, step: Step) -> str:
    name, computed = name_of(chain.owner), _computed(step, ITEMS[chain.item])
    if kind is ChangeKind.RECEIVES:
        return f"Acum {name} are {computed}."
    if kind is ChangeKind.LOSES:
        return f"{capitalized(_dative(chain.owner))} îi {_remain(step.result)} {computed}."
    return f"După aceea {name} are {computed}." if kind in GAINS else f"După aceea {name} mai are {computed}."


def _groups(groups: Groups) -> RenderedScenario:
    noun, container = ITEMS[groups.item], CONTAINERS[groups.container]
    where, other = preposition(groups.container), name_of(groups.other)
    containers, each = container.counted(groups.groups), noun.counted(groups.each)
    opening = (
        f"În cameră sunt {containers}. {capitalized(where)} fiecare {container.singular} se află {each}."
        if groups.in_room
        else f"{name_of(groups.owner)} are {containers}, iar {where} fiecare {container.singular} sunt {each}."
    )
    product, *rest = groups.steps
    working = [f"{capitalized(where)} {container.plural} sunt {_computed(product, noun)}."]
    total = f"{capitalized(noun.how_many)} sunt în total?"
    if not rest:
        return RenderedScenario(question=f"{opening} {total}", working=tuple(working))
    (final,) = rest
    if groups.change > 0:
        event = f"{other} mai aduce {noun.counted(groups.change)}. {total}"
        working.append(f"În total sunt {_computed(final, noun)}.")
    else:
        event = f"{other} ia {noun.counted(-groups.change)}. {capitalized(noun.how_many)} rămân?"
        working.append(f"{capitalized(_remain(final.result))} {_computed(final, noun)}.")
    return RenderedScenario(question=f"{opening} {event}", working=tuple(working))


def _comparison(comparison: Comparison) -> RenderedScenario:
    noun, owner = ITEMS[comparison.item], name_of(comparison.owner)
    change = difference(noun, comparison.difference)
    facts = f"{owner} are {noun.counted(comparison.amount)}. {name_of(comparison.other)} are {change} decât {owner}."
    return _two_people(facts, comparison, noun)


def _multiple(multiple: Multiple) -> RenderedScenario:
    noun, owner = ITEMS[multiple.item], name_of(multiple.owner)
    facts = (
        f"{owner} are {noun.counted(multiple.amount)}. "
        f"{name_of(multiple.other)} are {times(multiple.factor)} {more(noun)} {noun.plural} decât {owner}."
    )
    return _two_people(facts, multiple, noun)


def _two_people(facts: str, scenario: Comparison | Multiple, noun: Noun) -> RenderedScenario:
    owner, other = name_of(scenario.owner), name_of(scenario.other)
    working = [f"{other} are {_computed(scenario.steps[0], noun)}."]
    final = _computed(scenario.steps[-1], noun)
    if scenario.asks is Asks.OTHER:
        question = f"{capitalized(noun.how_many)} are {other}?"
    elif scenario.asks is Asks.TOGETHER:
        question = f"{capitalized(noun.how_many)} au împreună?"
        working.append(f"Împreună au {final}.")
    else:
        question = f"Cu {noun.how_many} {more(noun)} are {other} decât {owner}?"
        working.append(f"Diferența este de {final}.")
    return RenderedScenario(question=f"{facts} {question}", working=tuple(working))


def _purchase(purchase: Purchase) -> RenderedScenario:
    noun, subject = ITEMS[purchase.item], _pronoun(purchase.buyer)
    facts = (
        f"{name_of(purchase.buyer)} cumpără {noun.counted(purchase.count)}. "
        f"{capitalized(noun.one)} costă {LEU.counted(purchase.price)}."
    )
    working = [f"{capitalized(noun.definite_plural)} costă {_computed(purchase.steps[0], LEU)}."]
    if purchase.paid is None:
        question = f"{capitalized(LEU.how_many)} plătește {subject}?"
    else:
        question = f"{capitalized(subject)} plătește cu {LEU.counted(purchase.paid)}. Ce rest primește?"
        working.append(f"Restul este de {_computed(purchase.steps[1], LEU)}.")
    return RenderedScenario(question=f"{facts} {question}", working=tuple(working))


def _reading(reading: Reading) -> RenderedScenario:
    name, days = name_of(reading.reader), DAY.counted(reading.days)
    facts = f"{name} citește câte {PAGE.counted(reading.pages)} pe zi timp de {days}."
    working = [f"În {days} {name} citește {_computed(reading.steps[0], PAGE)}."]
    if reading.total is None:
        question = f"{capitalized(PAGE.how_many)} citește {name}?"
    else:
        pronoun_ = _pronoun(reading.reader)
        question = (
            f"Cartea are {PAGE.counted(reading.total)}. {capitalized(PAGE.how_many)} mai are {pronoun_} de citit?"
        )
        working.append(f"{name} mai are de citit {_computed(reading.steps[1], PAGE)}.")
    return RenderedScenario(question=f"{facts} {question}", working=tuple(working))


def _two_owners(scenario: TwoOwners) -> RenderedScenario:
    noun, container = ITEMS[scenario.item], CONTAINERS[scenario.container]
    owner, other = name_of(scenario.owner), name_of(scenario.other)
    owners = f"{container.counted(scenario.owners[0])} cu câte {noun.counted(scenario.owners[1])}"
    others = f"{container.counted(scenario.others[0])} cu câte {noun.counted(scenario.others[1])}"
    both = the_two(both_female=scenario.owner.female and scenario.other.female)
    first, second, total = (_computed(step, noun) for step in scenario.steps)
    return RenderedScenario(
        question=f"{owner} are {owners}. {other} are {others}. {capitalized(noun.how_many)} au împreună {both}?",
        working=(f"{owner} are {first}.", f"{other} are {second}.", f"Împreună au {total}."),
    )
