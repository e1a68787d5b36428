"""Base class of all specs, and a type for names that are safe in paths, labels and URLs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, get_args, get_origin

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationInfo, field_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A DNS label of at most 40 characters: it becomes part of object names, file paths and URLs."""

NO_BOOLEAN = "cannot be true or false, which YAML also reads from an unquoted yes, no, on or off"


class Document(BaseModel):
    """Base of everything that is read from JSON or YAML: frozen, and refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Spec(Document):
    """Base of all specs."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse ``learning_rate: yes``, which pydantic would read as 1."""
        if any(isinstance(each, bool) for each in _parts(value)):
            types = _types_in(cls, str(info.field_name))
            is_section = isinstance(value, Mapping) and dict not in map(get_origin, types)  # validates its own fields
            if not is_section and bool not in types:
                raise ValueError(NO_BOOLEAN)
        return value


def _parts(value: object) -> Collection[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def _types_in(spec: type[BaseModel], field: str) -> list[object]:
    """Return the type of a field with those that it is made of."""
    found: list[object] = [spec.model_fields[field].annotation]
    for each in found:
        found += get_args(getattr(each, "__value__", each))  # JsonValue is an alias of a type
    return found
