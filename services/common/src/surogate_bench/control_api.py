"""Bodies of the model server's control API: what it answers, and what evaluators send and read.

Readers ignore fields that they do not know, since a server of another version may still run during an upgrade.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ScaleSource = Literal["training", "calibration"]
"""Where the scales of FP8 inputs come from."""


class LoadRequest(BaseModel):
    """Body of ``PUT /adapters/{run}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str
    """The run's train stage in the store."""


class LoadedAdapter(BaseModel):
    """Answer to it: the adapter is loaded and verified."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str
    """Its name in vLLM."""
    input_scales: ScaleSource | None = Field(None, exclude_if=lambda value: value is None)
    """None where inputs have no scales."""


class ServerStatus(BaseModel):
    """Answer to ``GET /status``: what is served, and how."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ready: bool = True
    """Whether vLLM lists every desired adapter."""
    model: str
    """Name of the base model in vLLM."""
    max_model_len: int | None
    """Tokens that prompt and answer may have together; None before vLLM was up."""
    vllm_url: str
    adapters: dict[str, str] = {}
    """Names in vLLM by run."""
    under: str | None = None
    """Recipe that the base is served under; None for the base as published, and in versions that knew one way."""
    merged: str | None = None
    """Run whose adapter is merged into the base."""
    input_scales: dict[str, ScaleSource] = {}
    """Sources of input scales by run, the base model as ``base``; empty where inputs have no scales."""
    restarts: int = 0
    versions: dict[str, str]
    """Versions of the packages that serve, by distribution."""
    serving_version: int | None = None
    """SERVING_VERSION of the server; None in versions that did not state it."""
