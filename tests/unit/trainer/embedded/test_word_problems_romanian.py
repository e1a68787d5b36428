"""The embedded word problems' Romanian: numerals with "de", agreement in gender and number, declension, diacritics."""

import re
from random import Random

import pytest

from surogate_bench_trainer.embedded.word_problems import Problem, plain_romanian, romanian, split
from surogate_bench_trainer.embedded.word_problems.romanian_grammar import (
    Gender,
    Noun,
    cardinal_word,
    dative,
    difference,
    takes_de,
    the_two,
    times,
)
from surogate_bench_trainer.embedded.word_problems.scenario import (
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
    TwoOwners,
)

MANY = 1000
# Written down independently of the lexicon: singular and plural by the gender with which the plural agrees.
MASCULINE = {"biscuit": "biscuiți", "nasture": "nasturi", "trandafir": "trandafiri", "leu": "lei"}
FEMININE = {"bilă": "bile", "bomboană": "bomboane", "carte": "cărți", "cutie": "cutii", "floare": "flori"}
FEMININE |= {"pagină": "pagini", "pară": "pere", "portocală": "portocale", "pungă": "pungi", "zi": "zile"}
NEUTER = {"abțibild": "abțibilduri", "balon": "baloane", "caiet": "caiete", "cartonaș": "cartonașe", "coș": "coșuri"}
NEUTER |= {"creion": "creioane", "măr": "mere", "raft": "rafturi", "sertar": "sertare", "timbru": "timbre"}
SINGULARS = {*MASCULINE, *FEMININE, *NEUTER}
PLURALS = {*MASCULINE.values(), *FEMININE.values(), *NEUTER.values()}
PLURALS_AGREEING_AS_FEMININE = {*FEMININE.values(), *NEUTER.values()}
WOMEN = {"Maria", "Ioana", "Elena", "Cristina", "Irina", "Daria"}
MEN = {"Andrei", "Mihai", "Radu", "Vlad", "Sorin", "Matei"}

ANDREI, MIHAI = (Person(number=n, female=False) for n in (0, 1))
MARIA, IOANA = (Person(number=n, female=True) for n in (0, 1))
APPLE = Noun("măr", "mere", Gender.NEUTER)
COOKIE = Noun("biscuit", "biscuiți", Gender.MASCULINE)
BOOK = Noun("carte", "cărți", Gender.FEMININE)


def whole(problem: Problem) -> str:
    return f"{problem.question}\n{problem.answer}"


def romanian_texts() -> list[str]:
    rng = Random(5)
    problems = [whole(problem) for problem in split("train", language="ro", size=MANY, seed=3)]
    return problems + [plain_romanian(rng) for _ in range(MANY)]


def spoken_form_ends_in_a_simple_numeral(number: int) -> bool:
    """Oracle for "de": the noun follows directly what is spoken as zero to nineteen, alone or as the last part."""
    if number <= 19:
        return True
    last_part = int(str(number)[-2:])
    return 1 <= last_part <= 19


def test_de_follows_a_numeral_exactly_when_the_spoken_rule_says_so() -> None:
    for number in (*range(1300), 2000, 2019, 2020, 10_001, 1_000_000):
        assert takes_de(number) == (not spoken_form_ends_in_a_simple_numeral(number)), number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 mere"),
        (1, "1 măr"),
        (2, "2 mere"),
        (19, "19 mere"),
        (20, "20 de mere"),
        (100, "100 de mere"),
        (101, "101 mere"),
        (119, "119 mere"),
        (120, "120 de mere"),
    ],
)
def test_a_counted_noun_agrees_with_its_number(number: int, text: str) -> None:
    assert APPLE.counted(number) == text


def test_every_number_in_a_romanian_text_fits_its_noun() -> None:
    found = 0
    for text in romanian_texts():
        for number, de, noun in re.findall(r"(?<![\d+*-])(?:\d+[+*-]\d+=)?(\d+)( de)? ([^\W\d]+)", text):
            if noun not in SINGULARS | PLURALS:
                continue
            found += 1
            assert (noun in SINGULARS) == (number == "1"), text
            assert bool(de) == (not spoken_form_ends_in_a_simple_numeral(int(number))), text
    assert found > 4 * MANY


def test_every_number_in_a_romanian_text_precedes_a_known_noun_or_an_equation() -> None:
    for text in romanian_texts():
        body = text.split("\n####")[0]
        for following in re.findall(r"\d+(?![\d+*=-]) (?:de )?([^\W\d]+)", body):
            assert following in SINGULARS | PLURALS, text


def test_romanian_words_agree_with_the_gender_of_their_plural() -> None:
    masculine, feminine = set(MASCULINE.values()), PLURALS_AGREEING_AS_FEMININE
    for text in romanian_texts():
        for how_many, noun in re.findall(r"\b[Cc](âți|âte) ([^\W\d]+)", text):
            assert noun in (masculine if how_many == "âți" else feminine), text
        for noun, comparative in re.findall(r"(\w+) mai (mulți|multe|puțini|puține)\b", text):
            if noun in PLURALS:
                assert noun in (masculine if comparative.endswith("i") else feminine), text
        for comparative, noun in re.findall(r"\bori mai (mulți|multe) (\w+)", text):
            assert noun in (masculine if comparative == "mulți" else feminine), text
        for article, noun in re.findall(r"\b(Un|O) (\w+) costă", text):
            assert noun in (FEMININE if article == "O" else MASCULINE | NEUTER), text


def test_romanian_pronouns_and_datives_agree_with_the_gender_of_the_person() -> None:
    women = WOMEN | {name.removesuffix("a") + "ei" for name in WOMEN}
    for problem in split("train", language="ro", size=MANY):
        text = whole(problem)
        for pronoun in re.finditer(r"\b([Ee]l|[Ee]a)\b", text):
            named_before = [name for name in re.findall(r"\w+", text[: pronoun.start()]) if name in MEN | women]
            assert named_before[-1] in (MEN if pronoun[1].lower() == "el" else women), text
        assert MEN.issuperset(re.findall(r"\b[Ll]ui (\w+)", text)), text


def test_no_romanian_text_has_a_cedilla_or_a_decomposed_letter() -> None:
    letters = set("".join(romanian_texts()))
    assert letters.isdisjoint("şţŞŢ")
    assert {letter for letter in letters if not letter.isascii()} <= set("ăâîșțĂÂÎȘȚ")


@pytest.mark.parametrize(
    ("number", "gender", "word"),
    [
        (1, Gender.MASCULINE, "un"),
        (1, Gender.NEUTER, "un"),
        (1, Gender.FEMININE, "o"),
        (2, Gender.MASCULINE, "doi"),
        (2, Gender.NEUTER, "două"),
        (2, Gender.FEMININE, "două"),
    ],
)
def test_numerals_in_words_agree_in_gender(number: int, gender: Gender, word: str) -> None:
    assert cardinal_word(number, gender) == word


@pytest.mark.parametrize(
    ("noun", "change", "text"),
    [
        (APPLE, 5, "cu 5 mere mai multe"),
        (BOOK, -5, "cu 5 cărți mai puține"),
        (COOKIE, 5, "cu 5 biscuiți mai mulți"),
        (COOKIE, -20, "cu 20 de biscuiți mai puțini"),
        (APPLE, 1, "cu 1 măr mai mult"),
        (COOKIE, -1, "cu 1 biscuit mai puțin"),
    ],
)
def test_differences_agree_in_gender_and_number(noun: Noun, change: int, text: str) -> None:
    assert difference(noun, change) == text


def test_names_decline() -> None:
    assert dative("Maria", female=True) == "Mariei"
    assert dative("Elena", female=True) == "Elenei"
    assert dative("Radu", female=False) == "lui Radu"


def test_two_people_are_feminine_only_if_both_are_women() -> None:
    assert the_two(both_female=True) == "cele două"
    assert the_two(both_female=False) == "cei doi"
    assert [times(factor) for factor in (2, 3, 4)] == ["de două ori", "de trei ori", "de patru ori"]


@pytest.mark.parametrize(
    ("noun", "definite", "article"),
    [(APPLE, "merele", "un măr"), (BOOK, "cărțile", "o carte"), (COOKIE, "biscuiții", "un biscuit")],
)
def test_articles_agree(noun: Noun, definite: str, article: str) -> None:
    assert noun.definite_plural == definite
    assert noun.one == article


def test_a_chain_that_ends_with_one_item_uses_the_singular_throughout() -> None:
    changes = (Change(kind=ChangeKind.RECEIVES, amount=2), Change(kind=ChangeKind.LOSES, amount=6))
    chain = Chain(owner=MARIA, other=ANDREI, item=Item.APPLE, start=5, on_table=True, changes=changes)
    rendered = romanian.render(chain)
    assert rendered.question == (
        "Pe masa Mariei sunt 5 mere. Andrei îi dă Mariei încă 2 mere. Maria pierde 6 mere. Câte mere are Maria acum?"
    )
    assert rendered.working == ("Acum Maria are 5+2=7 mere.", "Mariei îi rămâne 7-6=1 măr.")


def test_containers_take_their_preposition_and_two_women_their_numeral() -> None:
    shelves = TwoOwners(
        owner=MARIA, other=IOANA, item=Item.ROSE, container=Container.SHELF, owners=(5, 4), others=(2, 3)
    )
    assert romanian.render(shelves).question == (
        "Maria are 5 rafturi cu câte 4 trandafiri. Ioana are 2 rafturi cu câte 3 trandafiri. "
        "Câți trandafiri au împreună cele două?"
    )
    assert romanian.render(shelves).working[-1] == "Împreună au 20+6=26 de trandafiri."
    room = Groups(
        owner=MARIA,
        other=MIHAI,
        item=Item.BOOK,
        container=Container.SHELF,
        in_room=True,
        groups=4,
        each=5,
        change=-19,
    )
    assert romanian.render(room) == RenderedScenario(
        question="În cameră sunt 4 rafturi. Pe fiecare raft se află 5 cărți. Mihai ia 19 cărți. Câte cărți rămân?",
        working=("Pe rafturi sunt 4*5=20 de cărți.", "Rămâne 20-19=1 carte."),
    )


def test_comparisons_agree_with_the_compared_noun() -> None:
    fewer = Comparison(owner=ANDREI, other=MARIA, item=Item.COOKIE, amount=18, difference=-6, asks=Asks.TOGETHER)
    assert romanian.render(fewer) == RenderedScenario(
        question="Andrei are 18 biscuiți. Maria are cu 6 biscuiți mai puțini decât Andrei. Câți biscuiți au împreună?",
        working=("Maria are 18-6=12 biscuiți.", "Împreună au 18+12=30 de biscuiți."),
    )
    double = Multiple(owner=ANDREI, other=MARIA, item=Item.APPLE, amount=10, factor=2, asks=Asks.DIFFERENCE)
    assert romanian.render(double) == RenderedScenario(
        question="Andrei are 10 mere. Maria are de două ori mai multe mere decât Andrei. "
        "Cu câte mere mai multe are Maria decât Andrei?",
        working=("Maria are 10*2=20 de mere.", "Diferența este de 20-10=10 mere."),
    )


def test_prices_and_pages_agree_with_their_numbers() -> None:
    purchase = Purchase(buyer=MARIA, item=Item.BUTTON, count=7, price=7, paid=50)
    assert romanian.render(purchase) == RenderedScenario(
        question="Maria cumpără 7 nasturi. Un nasture costă 7 lei. Ea plătește cu 50 de lei. Ce rest primește?",
        working=("Nasturii costă 7*7=49 de lei.", "Restul este de 50-49=1 leu."),
    )
    reading = Reading(reader=ANDREI, pages=5, days=4, total=21)
    assert romanian.render(reading) == RenderedScenario(
        question="Andrei citește câte 5 pagini pe zi timp de 4 zile. Cartea are 21 de pagini. "
        "Câte pagini mai are el de citit?",
        working=("În 4 zile Andrei citește 4*5=20 de pagini.", "Andrei mai are de citit 21-20=1 pagină."),
    )
