"""Requests to services: one JSON file, the only argument besides a work folder.

Every service is started as ``python -m surogate_bench_<service> REQUEST.json --work-dir DIR``.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from surogate_bench.contract import LOOPBACK
from surogate_bench.errors import ConfigError
from surogate_bench.layout import CheckSubject, SweepLayout
from surogate_bench.specs.base import Document
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.stages.exports import ExportFormat


class StageRequest(Document):
    """Fields of all requests."""

    sweep: RecipeSweep
    store: str = Field(description="URL of the object store that results go to.")
    threads: int | None = Field(None, ge=1, description="CPU threads that this process may use; all if absent.")

    @property
    def layout(self) -> SweepLayout:
        """Keys of the sweep in the store."""
        return SweepLayout(self.sweep.name, self.sweep.spec_hash)


class PrepareRequest(StageRequest):
    """Trainer service: check model and data, and put the data splits into the store."""

    kind: Literal["prepare"] = "prepare"
    in_images: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Whether foreign trainers run in images of their own, whose programs and files are not here.",
    )


class CheckRequest(StageRequest):
    """Check a part of the sweep before anything is trained.

    The evaluator checks the ``task`` on the prepared data, the model-server service the arguments for ``serving``.
    """

    kind: Literal["check"] = "check"
    subject: CheckSubject
    task: str | None = Field(
        None, exclude_if=lambda value: value is None, description="A further task to check; the primary one if absent."
    )


class TrainRequest(StageRequest):
    """Trainer service: train one adapter."""

    kind: Literal["train"] = "train"
    recipe: str
    seed: int
    side_by_side: int = Field(
        1, ge=1, description="Trainers that may run on this machine at the same time; recorded with every speed."
    )
    rank: int | None = Field(
        None,
        ge=0,
        exclude_if=lambda value: value is None,
        description="Which of the processes of a training run on several GPUs this is for; set by the trainer itself.",
    )


class ImportRequest(StageRequest):
    """Trainer service: fetch and check one adapter that was trained elsewhere, in place of a training run."""

    kind: Literal["import"] = "import"
    adapter: str = Field(description="Its name in the sweep.")


class ContainerStep(Document):
    """A part of a foreign training run whose command runs in a container of its own."""

    step: Literal["prepare", "collect"] = Field(
        description="Before the command: write what it is given. After it: check and publish what it left."
    )
    folder: Path = Field(description="Folder that all containers of the training have, at the same path.")


class ForeignTrainRequest(StageRequest):
    """Trainer service: have other software train one adapter, and check what it has written."""

    kind: Literal["foreign-train"] = "foreign-train"
    trainer: str = Field(description="Its name in the sweep.")
    seed: int
    side_by_side: int = Field(1, ge=1, description="As in a request to train.")
    in_container: ContainerStep | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="The part that this process does; all of it, with the command as a child process, if absent.",
    )


class ServeRequest(StageRequest):
    """Model-server service: supervise vLLM. The control API listens on ``port``, vLLM on ``vllm_port``."""

    kind: Literal["serve"] = "serve"
    host: str = LOOPBACK
    port: int = Field(ge=1, le=65535)
    vllm_port: int = Field(ge=1, le=65535)
    under: str | None = Field(
        None, description="Recipe whose stored weights and forward products the base has; as published if absent."
    )
    merged: str | None = Field(None, description="Run whose adapter is merged into the base first; none if absent.")


class EvaluateRequest(StageRequest):
    """Evaluator service: load one adapter, score it, unload it."""

    kind: Literal["evaluate"] = "evaluate"
    run: str = Field(description="Run to score, or 'base' for the unmodified base model.")
    server_url: str = Field(description="Control API of the model server, for example http://127.0.0.1:8100.")
    under: str | None = Field(None, description="Recipe that the server serves the base under; as published if absent.")
    merged: bool = Field(
        False,
        exclude_if=lambda value: not value,
        description="Whether the server has the run's adapter merged into the base.",
    )
    task: str | None = Field(
        None, exclude_if=lambda value: value is None, description="A further task to score; the primary one if absent."
    )


class ExportRequest(StageRequest):
    """Trainer service: write the base weights as a recipe stores them into a folder that other servers load."""

    kind: Literal["export"] = "export"
    recipe: str
    output: Path = Field(description="Folder to write, absolute; absent or empty.")
    format: ExportFormat


class InspectRequest(StageRequest):
    """Trainer service: check model and data as to prepare them, and describe what would be trained; store nothing."""

    kind: Literal["inspect"] = "inspect"
    output: Path = Field(description="File to write, absolute: an Inspection as JSON.")


AnyRequest = (
    PrepareRequest
    | CheckRequest
    | TrainRequest
    | ImportRequest
    | ForeignTrainRequest
    | ServeRequest
    | EvaluateRequest
    | ExportRequest
    | InspectRequest
)
Request = Annotated[AnyRequest, Field(discriminator="kind")]
_REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(Request)


def read_request(path: Path) -> AnyRequest:
    """Read the request that a service was started with.

    Raises:
        ConfigError: there is no such file, or it is not a request.
    """
    try:
        return _REQUEST.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", field="request", value=str(path), remedy="Give its path."
        ) from error
    except ValidationError as error:
        raise ConfigError(
            str(error), field="request", value=str(path), remedy="Requests are written by the orchestrator."
        ) from error
