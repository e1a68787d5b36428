"""Trainers of other software: commands that train an adapter for each seed of a sweep, in addition to its recipes."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from surogate_bench.contract import VARIABLE_PREFIX
from surogate_bench.specs.base import Name, Spec

REQUEST_PLACE = "{request}"
"""Stands for the path of the request in an argument of a command."""
PYTHON_PLACE = "{python}"
"""Stands for the interpreter that runs surogate-bench; on Kubernetes for ``python3`` of the trainer's image."""
NO_NUL = "must not contain a NUL character"
NOT_A_VARIABLE = "is not a name of an environment variable"
OWN_VARIABLE = f"begins with {VARIABLE_PREFIX}, which is reserved"
NOT_AN_IMAGE = "is not a reference of a container image, as in registry.example.com/team/trainer:1.2"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(NO_NUL)
    return text


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} {NOT_A_VARIABLE}")
    if name.startswith(VARIABLE_PREFIX):
        raise ValueError(f"{name} {OWN_VARIABLE}")
    return name


_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE_PATTERN = rf"^({_HOST}/)?{_PART}(/{_PART})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?$"
"""``[host[:port]/]path[:tag][@sha256:digest]``, the grammar of container registries."""
_IMAGE = re.compile(IMAGE_PATTERN)


def _image(reference: str) -> str:
    if not _IMAGE.fullmatch(reference):
        raise ValueError(NOT_AN_IMAGE)
    return reference


Argument = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_without_nul)]
Value = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_without_nul)]
Image = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(_image),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 512, "pattern": IMAGE_PATTERN}),
]
Variable = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_variable)]


class ForeignTrainer(Spec):
    """A command that trains one adapter from a request in JSON; docs/trainers.md has the contract."""

    name: Name = Field(description="Name of its row; its runs are called NAME-s<seed>.")
    command: tuple[Argument, ...] = Field(
        min_length=1,
        max_length=256,
        description="Program and arguments, started without a shell. {request} is replaced by the path of the request, "
        "{python} by the interpreter that runs surogate-bench (on Kubernetes by python3); an argument that begins with "
        "./ or ../ is relative to the sweep file, and refused on Kubernetes.",
    )
    image: Image | None = Field(
        None,
        exclude_if=lambda value: value is None,  # leaves the hash of sweeps without it unchanged
        description="Container image that contains the command; required on Kubernetes, without effect on one machine.",
    )
    environment: dict[Variable, Value] = Field(
        {}, max_length=256, description="Environment variables that are set for the command."
    )
    trained_under: Name | None = Field(
        None, description="Recipe that it trains under: a built-in one, or one of this sweep; unknown if absent."
    )
    timeout_s: float | None = Field(
        None, gt=0, description="Seconds after which an attempt is killed; train_timeout_s if absent."
    )

    @property
    def field(self) -> str:
        """Setting that names what is run, for messages."""
        return f"trainers.{self.name}.command"

    @property
    def label(self) -> str:
        """The command in one line."""
        return " ".join(self.command)

    @property
    def title(self) -> str:
        """Name of its row in tables."""
        return self.name
