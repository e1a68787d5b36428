"""The Romanian lexicon of the problems: names, items, containers and units."""

from surogate_bench_trainer.embedded.word_problems.romanian_grammar import Gender, Noun
from surogate_bench_trainer.embedded.word_problems.scenario import Container, Item, Person

_MEN = ("Andrei", "Mihai", "Radu", "Vlad", "Sorin", "Matei")
_WOMEN = ("Maria", "Ioana", "Elena", "Cristina", "Irina", "Daria")

ITEMS = {
    Item.APPLE: Noun("măr", "mere", Gender.NEUTER),
    Item.PENCIL: Noun("creion", "creioane", Gender.NEUTER),
    Item.BOOK: Noun("carte", "cărți", Gender.FEMININE),
    Item.MARBLE: Noun("bilă", "bile", Gender.FEMININE),
    Item.STAMP: Noun("timbru", "timbre", Gender.NEUTER),
    Item.CANDY: Noun("bomboană", "bomboane", Gender.FEMININE),
    Item.FLOWER: Noun("floare", "flori", Gender.FEMININE),
    Item.BALLOON: Noun("balon", "baloane", Gender.NEUTER),
    Item.NOTEBOOK: Noun("caiet", "caiete", Gender.NEUTER),
    Item.ORANGE: Noun("portocală", "portocale", Gender.FEMININE),
    Item.COOKIE: Noun("biscuit", "biscuiți", Gender.MASCULINE),
    Item.BUTTON: Noun("nasture", "nasturi", Gender.MASCULINE),
    Item.CARD: Noun("cartonaș", "cartonașe", Gender.NEUTER),
    Item.PEAR: Noun("pară", "pere", Gender.FEMININE),
    Item.STICKER: Noun("abțibild", "abțibilduri", Gender.NEUTER),
    Item.ROSE: Noun("trandafir", "trandafiri", Gender.MASCULINE),
}
CONTAINERS = {
    Container.BOX: Noun("cutie", "cutii", Gender.FEMININE),
    Container.BAG: Noun("pungă", "pungi", Gender.FEMININE),
    Container.BASKET: Noun("coș", "coșuri", Gender.NEUTER),
    Container.SHELF: Noun("raft", "rafturi", Gender.NEUTER),
    Container.DRAWER: Noun("sertar", "sertare", Gender.NEUTER),
}
LEU = Noun("leu", "lei", Gender.MASCULINE)
PAGE = Noun("pagină", "pagini", Gender.FEMININE)
DAY = Noun("zi", "zile", Gender.FEMININE)


def name_of(person: Person) -> str:
    """Return the first name of ``person``."""
    return (_WOMEN if person.female else _MEN)[person.number]


def preposition(container: Container) -> str:
    """Return the preposition of a container: "pe" for a shelf, otherwise "în"."""
    return "pe" if container is Container.SHELF else "în"
