"""Adapters that were trained elsewhere, scored along with those that the sweep trains."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from surogate_bench.specs.base import Name, Spec
from surogate_bench.specs.lora import LLAMA_PROJECTIONS
from surogate_bench.specs.model import REVISION_NEEDS_HUB, HubName

StoreUrl = Annotated[str, StringConstraints(pattern=r"^(s3|gs|az)://[^/]+(/[^/]+)+/?$", max_length=512)]
Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=200)]

OTHER_PROJECTIONS = frozenset(
    {
        "qkv_proj", "gate_up_proj", "c_fc", "c_proj", "dense", "fc1", "fc2", "out_proj", "query_key_value",
        "dense_h_to_4h", "dense_4h_to_h",
    }
)  # fmt: skip
"""Linear layers of supported architectures with other names: of Phi, GLM, StarCoder2, GPT-NeoX and OPT."""
SERVED_MODULES = frozenset(LLAMA_PROJECTIONS) | OTHER_PROJECTIONS
"""Last parts of the names of linear layers whose adapters are served."""
_ATTENTION_OUTPUTS = {"gpt_neox": "dense", "opt": "out_proj", "phi": "dense"}

ONE_ADAPTER_SOURCE = "set exactly one of path, url, hub"


def attention_output(model_type: str) -> str:
    """Return the last part of the name of the linear layer after attention, which all supported architectures have."""
    return _ATTENTION_OUTPUTS.get(model_type, "o_proj")


class ForeignAdapter(Spec):
    """A LoRA adapter in PEFT's format: exactly one of ``path``, ``url`` or ``hub``."""

    name: Name = Field(description="Name of its row, its run and its files.")
    path: Path | None = Field(None, description="Local folder with adapter_config.json and adapter_model.safetensors.")
    url: StoreUrl | None = Field(
        None, description="The same at s3://bucket/prefix, gs://… or az://…, read with the credentials of the store."
    )
    hub: HubName | None = Field(None, description="Name on the Hugging Face hub.")
    revision: Revision | None = Field(
        None, description="Hub revision (branch, tag or commit); the default branch if absent."
    )
    trained_under: Name | None = Field(
        None, description="Recipe with which it was trained: a built-in one, or one of this sweep; unknown if absent."
    )

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        given = [name for name in ("path", "url", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{ONE_ADAPTER_SOURCE}; {' and '.join(given) or 'none'} given")
        if self.revision is not None and self.hub is None:
            raise ValueError(REVISION_NEEDS_HUB)
        if self.revision is not None and ".." in self.revision:
            raise ValueError("revision: no name of a branch, tag or commit contains '..'")
        return self

    @property
    def field(self) -> str:
        """Setting that names the source, for messages."""
        source = next(name for name in ("path", "url", "hub") if getattr(self, name) is not None)
        return f"adapters.{self.name}.{source}"

    @property
    def label(self) -> str:
        """Location of the adapter, as the sweep states it."""
        return self.hub or self.url or str(self.path)
