"""The document of a sweep as commented YAML. Comments and defaults are those of the models in ``specs``."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.base import Spec
from surogate_bench_orchestrator.cli.commands.init.document import Document

WIDTH = 120
"""Columns of a comment at most."""

_HEAD = (
    "A sweep of surogate-bench, written by `surogate-bench init`. A setting behind # has its default; "
    "configs/README.md describes every setting. Relative paths start from the folder of this file."
)

SECTIONS = frozenset({"model", "data", "training", "training.lora", "serving", "evaluation"})
"""Parts of a sweep that are written as a section, by path."""

_OPTIONAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "": ("engine", "max_attempts"),
        "data": ("prompt", "completion", "train_size", "validation_size", "test_size", "seed"),
        "training": (
            "packing", "lr_scheduler", "warmup_steps", "weight_decay", "loss_on", "eval_steps", "checkpoint_steps",
        ),
        "training.lora": ("dropout", "use_rslora"),
        "serving": ("merged", "max_lora_rank", "gpu_memory_utilization", "kv_cache_gib", "extra_args"),
        "evaluation": ("chat_template", "num_fewshot", "num_concurrent", "max_gen_toks", "limit", "evaluate_base"),
    }
)  # fmt: skip
"""Settings that are shown with their defaults where they are not given, by section."""
_OPTIONAL_BY_SOURCE: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("model", "hub"): ("revision",),
        ("data", "hub"): ("config", "revision", "splits", "format", "shuffle", "hold_out"),
        ("data", "path"): ("files", "format", "shuffle", "hold_out"),
    }
)
"""The same, where the section names its source by this setting."""

_PLAIN = re.compile(r"(\.{1,2}/)?[A-Za-z/]([A-Za-z0-9_./@+-]*[A-Za-z0-9_/+-])?")
"""Texts that every YAML parser reads as they are, unless they are reserved."""
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_SENTENCE_END = re.compile(r"(?<=\.)\s+(?=[A-Z])")
_UNLIMITED = 2**20
"""Columns, so that no value is broken over lines."""


class _Dumper(yaml.SafeDumper):
    """Puts every text in quotes that a parser of YAML 1.1 or 1.2 could read as anything else."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - of the base class
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _represent_text)


def text_of(document: Document) -> str:
    """Return a sweep's document as YAML with a comment above each setting, none wider than 120 columns.

    Useful settings that the document does not give are comments with their defaults: without ``#`` they change nothing.
    """
    lines = [*_comment(_HEAD, 0), *_section(document, "")]
    return "\n".join(lines) + "\n"


def described(path: str) -> str:
    """Return the first sentence that the specs say about a setting or section; empty if they say nothing.

    Args:
        path: Such as ``training.lora.r``, or ``training.lora``.
    """
    if path in SECTIONS:
        return _first_sentence(_model_of(path).__doc__ or "")
    section, _, name = path.rpartition(".")
    return _first_sentence(_model_of(section).model_fields[name].description or "")


def _model_of(path: str) -> type[Spec]:
    """Return the model of a section; of the sweep itself if the path is empty."""
    model: type[Spec] = RecipeSweep
    for part in path.split(".") if path else ():
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Spec)):
            raise TypeError(f"{path} is a setting, not a section")
        model = annotation
    return model


def _section(given: Mapping[str, object], path: str) -> Iterator[str]:
    shown = {*_OPTIONAL.get(path, ()), *(name for key in given for name in _OPTIONAL_BY_SOURCE.get((path, key), ()))}
    for name, field in _model_of(path).model_fields.items():
        if name in given:
            yield from _given(name, given[name], f"{path}.{name}".lstrip("."))
        elif name in shown:
            yield from _gap(path)
            yield from _comment(described(f"{path}.{name}".lstrip(".")), _depth(path))
            yield from _setting(name, _default(field), _depth(path), mark="#")


def _gap(section: str) -> Iterator[str]:
    """Yield the blank line that separates the settings outside of any section."""
    if not section:
        yield ""


def _given(name: str, value: object, path: str) -> Iterator[str]:
    """Yield a setting or section that the document has."""
    section = path.rpartition(".")[0]
    depth = _depth(section)
    yield from _gap(section)
    yield from _comment(described(path), depth)
    if path in SECTIONS and isinstance(value, dict):
        yield f"{'  ' * depth}{name}:"
        yield from _section(value, path)
    else:
        yield from _setting(name, value, depth)


def _setting(name: str, value: object, depth: int, *, mark: str = "") -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        yield f"{indent}{mark}{name}:"
        yield from (f"{indent}{mark}- {_in_a_line(entry)}" for entry in value)
    else:
        yield f"{indent}{mark}{name}: {_in_a_line(value)}"


def _in_a_line(value: object) -> str:
    listed: str = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=_UNLIMITED, sort_keys=False
    )
    return listed.strip()[1:-1]


def _comment(text: str, depth: int) -> Iterator[str]:
    indent = f"{'  ' * depth}# "
    yield from textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _default(field: FieldInfo) -> object:
    value: object = to_jsonable_python(field.default)
    return value


def _first_sentence(text: str) -> str:
    first = _SENTENCE_END.split(text.partition("\n\n")[0].strip())[0]
    return " ".join(first.replace("``", "`").split())
