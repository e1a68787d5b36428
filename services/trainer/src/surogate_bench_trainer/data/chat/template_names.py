"""Names that a chat template reads: variables from outside, and fields of messages."""

import re
from functools import lru_cache

from jinja2 import Environment, nodes
from jinja2.meta import find_undeclared_variables

FUNCTIONS = frozenset({"raise_exception", "strftime_now"})
"""Functions that transformers gives every template."""

_ALL_MARKS = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")


@lru_cache(maxsize=4)
def used_variables(template: str) -> frozenset[str]:
    """Return the names of the variables that a chat template takes from outside.

    Raises:
        TemplateSyntaxError: it is no template of Jinja.
    """
    return frozenset(find_undeclared_variables(_parsed(template)))


@lru_cache(maxsize=4)
def used_fields(template: str) -> frozenset[str]:
    """Return the names of the fields that a chat template may read, as ``m.name``, ``m["name"]`` or ``"name" in m``."""
    parsed = _parsed(template)
    constants = (node.value for node in parsed.find_all(nodes.Const))
    attributes = (node.attr for node in parsed.find_all(nodes.Getattr))
    return frozenset(name for name in (*constants, *attributes) if isinstance(name, str))


def _parsed(template: str) -> nodes.Template:
    """Parse a template, which is not rendered here, without the marks that only transformers knows."""
    environment = Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"])
    return environment.parse(_ALL_MARKS.sub("", template))
