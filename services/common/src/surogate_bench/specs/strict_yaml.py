"""Strict YAML: what is ambiguous or unreadable is refused with its line.

Refused are keys written twice (YAML 1.2 forbids them; PyYAML lets the last one win), tags beyond plain data, recursive
or exploding aliases, deep nesting, and numbers that YAML 1.1 reads as octal or base 60.
"""

import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_BYTES = 2**20
_MAX_DEPTH = 50
_MAX_VALUES = 100_000
"""Maximum number of values in a document, with every alias counted as often as it is used."""
_LONGEST_SHOWN = 40
"""Characters of a value in a message."""
_AMBIGUOUS_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""An escape such as ``"\\ud800"`` makes one; it has no UTF-8 form, so it could be neither hashed nor written."""
_FOREIGN_STARTS = {
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed with gzip", b"PK\x03\x04": "a ZIP archive",
}  # fmt: skip
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"


class StrictYamlError(ValueError):
    """The text is refused; the message names the line where there is one."""


class _Loader(yaml.SafeLoader):
    """Plain data only."""


_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None
    or tag.removeprefix(_TAG) in {"null", "bool", "int", "float", "str", "timestamp", "map", "seq", "merge"}
}


def read_yaml(data: bytes) -> object:
    """Read one document.

    Raises:
        StrictYamlError: it is not UTF-8, not YAML, or holds what this module refuses.
    """
    text = _decode(data)
    try:
        _check_nesting(text)
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            return None
        _check(root)
        return _Loader("").construct_document(root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StrictYamlError(f"line {line}: the character U+{_code(error.character):04X} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        raise StrictYamlError(_in_a_line(error)) from error


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise StrictYamlError(f"it is larger than {MAX_BYTES >> 20} MiB")
    foreign = next((name for start, name in _FOREIGN_STARTS.items() if data.startswith(start)), None)
    if foreign is None and data[:64].count(0) > len(data[:64]) // 4:
        foreign = "UTF-16 or UTF-32"
    if foreign is not None:
        raise StrictYamlError(f"it is {foreign}; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StrictYamlError(f"line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8") from error


def _check_nesting(text: str) -> None:
    """Refuse deep nesting before any recursive parser runs; events come one by one."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise StrictYamlError(f"{_line(event)}: nested more than {_MAX_DEPTH} levels deep")


def _check(root: Node) -> None:
    sizes: dict[int, int] = {}
    _check_node(root, "", sizes, set())
    if sizes[id(root)] > _MAX_VALUES:
        raise StrictYamlError(f"its aliases make it more than {_MAX_VALUES:,} values")


def _check_node(node: Node, path: str, sizes: dict[int, int], above: set[int]) -> None:
    """Check a node and those below it, each once; ``sizes`` counts the values below it."""
    if id(node) in above:
        raise StrictYamlError(f"{_line(node)}: {path or 'the document'}: it contains itself through an alias")
    if id(node) in sizes:
        return
    above.add(id(node))
    size = 1
    for child, where in _children(node, path):
        _check_node(child, where, sizes, above)
        size += sizes[id(child)]
    if isinstance(node, MappingNode):
        _check_keys(node, path)
    elif isinstance(node, ScalarNode):
        _check_scalar(node, path)
    above.discard(id(node))
    sizes[id(node)] = size


def _children(node: Node, path: str) -> Iterator[tuple[Node, str]]:
    if isinstance(node, SequenceNode):
        for index, child in enumerate(node.value):
            yield child, _join(path, str(index))
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key, path
            yield value, _join(path, str(key.value) if isinstance(key, ScalarNode) else "?")


def _check_keys(node: MappingNode, path: str) -> None:
    """Refuse a key that is written twice; keys from a merge (``<<``) may be replaced, as YAML intends."""
    lines: dict[Hashable, int] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise StrictYamlError(f"{_line(key)}: a key must be a single word, not a {key.id}")
        if key.tag not in {f"{_TAG}str", _MERGE}:
            raise StrictYamlError(f"{_line(key)}: the key {key.value!r} is not text; put it in quotes")
        line = key.start_mark.line + 1
        if key.value in lines:
            raise StrictYamlError(
                f"line {line}: the key {_join(path, key.value)!r} is written twice, first in line {lines[key.value]}"
            )
        lines[key.value] = line


def _check_scalar(node: ScalarNode, path: str) -> None:
    where = f"{_line(node)}: {path or 'the document'}"
    if lone := _LONE_SURROGATE.search(node.value):
        raise StrictYamlError(
            f"{where}: U+{ord(lone[0]):04X} is half of a surrogate pair and not a character; write the character itself"
        )
    if node.tag == _MERGE:
        return
    if node.tag in {f"{_TAG}int", f"{_TAG}float"} and _AMBIGUOUS_NUMBER.fullmatch(node.value):
        raise StrictYamlError(
            f"{where}: {node.value!r} could be read as octal or base 60; write a decimal number, or put text in quotes"
        )
    try:
        _Loader("").construct_object(node)
    except yaml.MarkedYAMLError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
        kind = node.tag.removeprefix(_TAG).replace("timestamp", "date")
        shown = node.value if len(node.value) <= _LONGEST_SHOWN else f"{node.value[:_LONGEST_SHOWN]}…"
        raise StrictYamlError(f"{where}: {shown!r} is not a valid {kind}; put text in quotes") from error


def _in_a_line(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = " ".join(part for part in (error.context, error.problem) if part)
    if "\\t" in problem:
        problem = "a tab is not allowed here; indent with spaces"
    return f"line {mark.line + 1}: {problem}" if mark else problem


def _line(node: Any) -> str:  # noqa: ANN401 - in the stubs, nodes and events may lack the mark that parsed ones have
    return f"line {node.start_mark.line + 1}"


def _code(character: str | int) -> int:
    return character if isinstance(character, int) else ord(character)


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part
