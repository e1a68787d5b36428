"""Answers and options as they are typed: numbers, lists, pairs, and any setting as PATH=VALUE."""

import re
from collections.abc import Iterable, Iterator, Sequence

from surogate_bench.errors import ConfigError
from surogate_bench.specs.strict_yaml import StrictYamlError, read_yaml
from surogate_bench_orchestrator.cli.commands.init.text import SECTIONS

_SEPARATOR = re.compile(r"[\s,]+")


def number(text: str) -> int | float | str:
    """Return a number; a text that is none stays as it is, so that the spec refuses it by its own message."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def listed(text: str) -> list[str]:
    """Return the entries of a list whose separators are commas or spaces."""
    return [entry for entry in _SEPARATOR.split(text.strip()) if entry]


def numbers(texts: Iterable[str]) -> list[int | float | str]:
    """Return each text as a number, where it is one."""
    return [number(text) for text in texts]


def pairs(section: str, option: str, given: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield settings of a section from options such as ``--field question=Q``.

    Raises:
        ConfigError: one is no pair.
    """
    for each in given:
        name, sign, value = each.partition("=")
        if not (name and sign and value):
            raise ConfigError("must be NAME=VALUE", field=option, value=each, remedy=f"For example {option} train=all.")
        yield f"{section}.{name}", value


def settings(given: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield settings from options such as ``--set training.warmup_steps=5``, whose values are YAML.

    Raises:
        ConfigError: one is not of this form.
    """
    for each in given:
        path, sign, value = each.partition("=")
        if not sign or not all(path.split(".")):
            remedy = "For example --set training.warmup_steps=5."
            raise ConfigError("must be SETTING=VALUE", field="--set", value=each, remedy=remedy)
        try:
            yield from _flat(path, read_yaml(value.encode("utf-8", errors="surrogateescape")))
        except StrictYamlError as error:
            raise ConfigError(f"is not valid YAML: {error}", field=path, value=value, remedy="Correct it.") from error


def _flat(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the settings of a section one by one, so that they take the place of single defaults."""
    if path not in SECTIONS:
        yield path, value
        return
    if not isinstance(value, dict):
        raise ConfigError("must be a mapping", field=path, value=value, remedy=f"For example --set {path}.NAME=VALUE.")
    for name, inner in value.items():
        yield from _flat(f"{path}.{name}", inner)
