"""The Romanian grammar of the word problems: numerals, agreement in gender and number, definite and dative forms.

Source: Academia Română, Gramatica limbii române; DOOM 3 for the forms of the nouns.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Gender(Enum):
    """Grammatical gender. Neuter nouns agree as masculine in the singular and as feminine in the plural."""

    MASCULINE = auto()
    FEMININE = auto()
    NEUTER = auto()


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun's indefinite forms and gender."""

    singular: str
    plural: str
    gender: Gender

    @property
    def masculine_plural(self) -> bool:
        """Whether words agree with the plural as masculine (câți, mulți) rather than as feminine (câte, multe)."""
        return self.gender is Gender.MASCULINE

    @property
    def definite_plural(self) -> str:
        """The plural with its article: biscuiții, merele."""
        return self.plural + ("i" if self.masculine_plural else "le")

    @property
    def how_many(self) -> str:
        """The question for a number: "câți biscuiți", "câte mere"."""
        return f"{'câți' if self.masculine_plural else 'câte'} {self.plural}"

    @property
    def one(self) -> str:
        """The singular with its indefinite article: "un măr", "o carte"."""
        return f"{cardinal_word(1, self.gender)} {self.singular}"

    def after(self, count: int) -> str:
        """Return the text after the numeral ``count``: "măr" (1), "mere" (19), "de mere" (20)."""
        if count == 1:
            return self.singular
        return f"de {self.plural}" if takes_de(count) else self.plural

    def counted(self, count: int) -> str:
        """Return numeral and noun: "1 măr", "19 mere", "20 de mere"."""
        return f"{count} {self.after(count)}"


def takes_de(count: int) -> bool:
    """Return whether "de" links numeral and noun: if the last two digits are 00 or 20 to 99, except for 0."""
    return count != 0 and count % 100 not in range(1, 20)


_CARDINALS = {
    1: ("un", "o"),
    2: ("doi", "două"),
    3: ("trei", "trei"),
    4: ("patru", "patru"),
}


def cardinal_word(number: int, gender: Gender) -> str:
    """Return the numeral 1 to 4 in the form before a noun of ``gender``: "un"/"o", "doi"/"două", "trei", "patru"."""
    masculine, feminine = _CARDINALS[number]
    agrees_as_masculine = gender is Gender.MASCULINE or (gender is Gender.NEUTER and number == 1)
    return masculine if agrees_as_masculine else feminine


def times(factor: int) -> str:
    """Return the multiplicative numeral of ``factor`` (2 to 4): "de două ori"."""
    return f"de {cardinal_word(factor, Gender.FEMININE)} ori"


def more(noun: Noun) -> str:
    """Return the comparative "more" in agreement with the plural: "mai mulți", "mai multe"."""
    return "mai mulți" if noun.masculine_plural else "mai multe"


def fewer(noun: Noun) -> str:
    """Return the comparative "fewer" in agreement with the plural: "mai puțini", "mai puține"."""
    return "mai puțini" if noun.masculine_plural else "mai puține"


def difference(noun: Noun, change: int) -> str:
    """Return a difference, more (``change`` > 0) or fewer (< 0): "cu 5 mere mai multe", "cu 1 măr mai puțin"."""
    count = abs(change)
    if count == 1:
        return f"cu {noun.counted(1)} {'mai mult' if change > 0 else 'mai puțin'}"
    return f"cu {noun.counted(count)} {more(noun) if change > 0 else fewer(noun)}"


def pronoun(*, female: bool) -> str:
    """Return the third-person subject: "ea", "el"."""
    return "ea" if female else "el"


def dative(name: str, *, female: bool) -> str:
    """Return the dative and genitive of a first name (of women ending in -a): "lui Radu", "Mariei"."""
    return f"{name.removesuffix('a')}ei" if female else f"lui {name}"


def the_two(*, both_female: bool) -> str:
    """Return "the two" of two people: "cele două" for two women, otherwise "cei doi"."""
    if both_female:
        return f"cele {cardinal_word(2, Gender.FEMININE)}"
    return f"cei {cardinal_word(2, Gender.MASCULINE)}"


def capitalized(text: str) -> str:
    """Return ``text`` with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]
