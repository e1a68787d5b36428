"""Generate the reference of all sweep settings from the models: ``python -m surogate_bench.specs.reference``."""

import sys
from collections.abc import Iterator
from typing import Any

from surogate_bench.specs.sweep import RecipeSweep

_HEAD = """# Settings of a sweep

Generated from the `RecipeSweep` model by `make reference`; do not edit. Unknown fields are refused.
Relative paths are taken relative to the sweep file.
"""


def reference() -> str:
    """Render every section of a sweep as a Markdown table."""
    schema = RecipeSweep.model_json_schema()
    sections = [("The sweep", schema)]
    for name, field in schema["properties"].items():
        target = _definition(schema, field)
        if target and "properties" in target:
            sections.append((f"`{name}`", target))
    lora = _definition(schema, schema["$defs"]["TrainingSpec"]["properties"]["lora"])
    recipe = schema["$defs"]["Recipe"]
    adapter, trainer = schema["$defs"]["ForeignAdapter"], schema["$defs"]["ForeignTrainer"]
    sections += [
        ("`training.lora`", lora or {}),
        ("`evaluation.tasks`: the fields of a task", schema["$defs"]["TaskEntry"]),
        ("`evaluation.tasks.data`", schema["$defs"]["TaskData"]),
        ("`recipes`: the fields of a recipe", recipe),
        ("`adapters`: the fields of an adapter", adapter),
        ("`trainers`: the fields of a trainer", trainer),
    ]
    return "\n".join([_HEAD, *(_section(title, part, schema) for title, part in sections)])


def _section(title: str, part: dict[str, Any], schema: dict[str, Any]) -> str:
    rows = "\n".join(_rows(part, schema))
    purpose = part.get("description", "").partition("\nRaises:")[0].replace("``", "`").strip()
    return f"## {title}\n\n{purpose}\n\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n{rows}\n"


def _rows(part: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    required = set(part.get("required", ()))
    for name, field in part["properties"].items():
        nested = _definition(schema, field)
        default = "required" if name in required else f"`{_shown(field.get('default'))}`"
        if nested and "properties" in nested:
            default = "required" if name in required else "its defaults"
        text = field.get("description", "").replace("|", "\\|").replace("\n", " ")
        yield f"| `{name}` | {_type(field, schema)} | {default} | {text} |"


def _definition(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any] | None:
    reference = field.get("$ref") or next((part.get("$ref") for part in field.get("allOf", ())), None)
    return schema["$defs"][reference.rsplit("/", 1)[-1]] if reference else None


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    target = _definition(schema, field)
    if target is not None:
        return " \\| ".join(f"`{value}`" for value in target["enum"]) if "enum" in target else "section"
    if "anyOf" in field:
        return " \\| ".join(_type(option, schema) for option in field["anyOf"] if option.get("type") != "null")
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'], schema)}" if "items" in field else "list"
    return f"{field.get('type', 'any')}{_limits(field)}"


def _limits(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]:.12g}" for key, sign in signs.items() if key in field]
    return f" ({', '.join(limits)})" if limits else ""


def _shown(default: object) -> str:
    if isinstance(default, list):
        return ", ".join(map(str, default)) or "none"
    if isinstance(default, str):
        return default.replace("\n", "\\n") or "empty"
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    sys.stdout.write(reference())
