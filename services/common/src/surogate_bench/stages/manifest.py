"""The content of a stage's ``manifest.json``: its result, inputs, versions and hardware. Pure, no I/O.

:mod:`surogate_bench.stages.publication` reads and writes manifests.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    RootModel,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from surogate_bench.errors import PermanentError
from surogate_bench.layout import Stage
from surogate_bench.machine.hardware import Hardware
from surogate_bench.results import (
    CheckResult,
    EvalResult,
    ForeignTrainResult,
    ImportResult,
    PrepareResult,
    TrainResult,
)


class FileDigest(BaseModel):
    """SHA-256 (hex) and size (bytes) of one output file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int


class UnreadableResult(RootModel[dict[str, Any]]):
    """A result that this version cannot read, kept unchanged; the stage is complete."""

    model_config = ConfigDict(frozen=True)


StageResult = PrepareResult | CheckResult | TrainResult | ImportResult | ForeignTrainResult | EvalResult
ResultT = TypeVar("ResultT", bound=BaseModel)

RESULT_TYPES: Mapping[Stage, type[StageResult]] = MappingProxyType(
    {
        "prepare": PrepareResult,
        "check": CheckResult,
        "train": TrainResult,
        "import": ImportResult,
        "foreign-train": ForeignTrainResult,
        "eval": EvalResult,
    }
)
"""Type of :attr:`Manifest.result` by stage."""


class Manifest(BaseModel):
    """The record of one finished stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: Stage
    run: str
    spec_hash: str
    created: datetime
    files: dict[str, FileDigest]
    engine: str | None = None
    hardware: Hardware
    versions: dict[str, str]
    result: StageResult | UnreadableResult
    """Has the stage's type in :data:`RESULT_TYPES`, as which :func:`result_of` and :meth:`require_result` return it."""
    procedure_version: int = 1
    """TRAINING_VERSION or SCORING_VERSION of the code that computed it."""
    reused_from: str | None = None
    """Prefix of the stage of another sweep that has the files; None if this stage has them."""

    @field_validator("result", mode="before")
    @classmethod
    def _select_result_type(cls, value: object, info: ValidationInfo) -> object:
        if "stage" not in info.data:  # refused already
            return value
        kind = RESULT_TYPES[info.data["stage"]]
        if isinstance(value, BaseModel):
            if not isinstance(value, (kind, UnreadableResult)):
                message = f"a {info.data['stage']} stage has a {kind.__name__}, not a {type(value).__name__}"
                raise ValueError(message)  # noqa: TRY004 - pydantic does not convert a TypeError
            return value
        try:
            return kind.model_validate(value)
        except ValidationError:
            return UnreadableResult.model_validate(value)

    def require_result(self, kind: type[ResultT]) -> ResultT:
        """Return the result.

        Raises:
            PermanentError: it is of another type, or this version cannot read it.
        """
        if (result := result_of(self, kind)) is not None:
            return result
        try:
            return kind.model_validate(self.result.model_dump())
        except ValidationError as error:
            raise PermanentError(f"the {self.stage} manifest of {self.run} has no usable result: {error}") from error

    def location(self, prefix: str) -> str:
        """Return the prefix of the files; ``prefix`` is that of the manifest itself."""
        return self.reused_from or prefix

    def without_details(self) -> "Manifest":
        """Return a copy without files, hardware and versions, which take most of the memory."""
        return self.model_copy(update={"files": {}, "hardware": Hardware(), "versions": {}})


def result_of(manifest: Manifest | None, kind: type[ResultT]) -> ResultT | None:
    """Return a manifest's result; None if there is no manifest, or this version cannot read the result."""
    result: object = None if manifest is None else manifest.result
    return result if isinstance(result, kind) else None


def training_of(manifest: Manifest | None) -> TrainResult | ForeignTrainResult | None:
    """Return the result of a training run, by this software or by a foreign trainer; None as in :func:`result_of`."""
    return result_of(manifest, TrainResult) or result_of(manifest, ForeignTrainResult)
