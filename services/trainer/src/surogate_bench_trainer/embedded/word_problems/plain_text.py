"""Texts other than word problems for the pre-training of the embedded base model."""

from random import Random

from surogate_bench_trainer.embedded.word_problems.romanian_grammar import (
    Noun,
    capitalized,
    dative,
    difference,
    more,
    pronoun,
    times,
)
from surogate_bench_trainer.embedded.word_problems.romanian_lexicon import (
    CONTAINERS,
    ITEMS,
    LEU,
    PAGE,
    name_of,
    preposition,
)
from surogate_bench_trainer.embedded.word_problems.scenario import PEOPLE, Container, Step

_LINES_OF_EQUATIONS = 8


def equations(rng: Random) -> str:
    """Return eight lines of arithmetic, such as "12+5=17", in the number range of the word problems."""
    return "\n".join(str(_equation(rng)) for _ in range(_LINES_OF_EQUATIONS))


def _equation(rng: Random) -> Step:
    operator = rng.choice(("+", "-", "*"))
    if operator == "+":
        return Step(left=rng.randint(2, 70), operator="+", right=rng.randint(2, 40))
    if operator == "-":
        left = rng.randint(4, 100)
        return Step(left=left, operator="-", right=rng.randint(2, left - 1))
    return Step(left=rng.randint(2, 12), operator="*", right=rng.randint(2, 9))


def plain_romanian(rng: Random) -> str:
    """Return two to four Romanian statements without a question or calculation."""
    return " ".join(
        rng.choice((_about_somebody, _about_things, _about_two_people))(rng) for _ in range(rng.randint(2, 4))
    )


def _amount(rng: Random) -> int:
    return rng.randint(2, 60)


def _counted(rng: Random, noun: Noun) -> str:
    return noun.counted(_amount(rng))


def _about_somebody(rng: Random) -> str:
    person, noun = rng.choice(PEOPLE), rng.choice(tuple(ITEMS.values()))
    name, items = name_of(person), _counted(rng, noun)
    subject = capitalized(pronoun(female=person.female))
    owner = dative(name, female=person.female)
    return rng.choice(
        (
            f"{name} are {items}.",
            f"{name} cumpără {items} la piață.",
            f"{name} dă {items} unui prieten.",
            f"{name} vinde {items}.",
            f"{name} citește câte {_counted(rng, PAGE)} pe zi.",
            f"{subject} găsește {items} la școală.",
            f"{subject} pierde {items}.",
            f"{subject} plătește cu {_counted(rng, LEU)} și primește rest.",
            f"{capitalized(owner)} îi rămân {items}.",
            f"Pe masa {owner} sunt {items}.",
        )
    )


def _about_things(rng: Random) -> str:
    noun, place = rng.choice(tuple(ITEMS.values())), rng.choice(tuple(Container))
    container, where = CONTAINERS[place], preposition(place)
    items = _counted(rng, noun)
    return rng.choice(
        (
            f"În cameră sunt {_counted(rng, container)}.",
            f"{capitalized(where)} {container.plural} sunt {items}.",
            f"{capitalized(where)} fiecare {container.singular} se află {items}.",
            f"În total sunt {items}.",
            f"Cartea are {_counted(rng, PAGE)}.",
            f"{capitalized(noun.one)} costă {_counted(rng, LEU)}.",
            f"{capitalized(noun.definite_plural)} costă {_counted(rng, LEU)}.",
            f"Diferența este de {_counted(rng, LEU)}.",
        )
    )


def _about_two_people(rng: Random) -> str:
    first, second = rng.sample(PEOPLE, 2)
    noun = rng.choice(tuple(ITEMS.values()))
    name, other, items = name_of(first), name_of(second), _counted(rng, noun)
    change = _amount(rng) * rng.choice((1, -1))
    return rng.choice(
        (
            f"{name} și {other} au împreună {items}.",
            f"{other} îi dă {dative(name, female=first.female)} încă {items}.",
            f"{name} are {difference(noun, change)} decât {other}.",
            f"{name} are {times(rng.choice((2, 3, 4)))} {more(noun)} {noun.plural} decât {other}.",
            f"Acum {name} are {items}, după aceea {other} mai aduce {_counted(rng, noun)}.",
        )
    )
