"""Base class of all specs, and a type for names that are safe in paths, labels and URLs."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A DNS label of at most 40 characters: it becomes part of object names, file paths and URLs."""


class Spec(BaseModel):
    """Base of all specs: frozen, and refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
