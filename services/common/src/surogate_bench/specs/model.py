"""The base model that is fine-tuned and served."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from surogate_bench.specs.base import Name, Spec

HubName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")]

ONE_SOURCE = "set exactly one of hub, path, builtin"
REVISION_NEEDS_HUB = "revision only applies to hub"


class ModelSpec(Spec):
    """A base model: exactly one of ``hub``, ``path`` or ``builtin``."""

    hub: HubName | None = Field(None, description="Name on the Hugging Face hub, for example Qwen/Qwen3-0.6B.")
    revision: str | None = Field(
        None, description="Hub revision (branch, tag or commit); the default branch if absent."
    )
    path: Path | None = Field(None, description="Local folder in transformers format (safetensors).")
    builtin: Name | None = Field(
        None, description="A model that is part of surogate-bench (tiny-qwen3-en) or of a package (smollm2-135m)."
    )

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        given = [name for name in ("hub", "path", "builtin") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{ONE_SOURCE}; {' and '.join(given) or 'none'} given")
        if self.revision is not None and self.hub is None:
            raise ValueError(REVISION_NEEDS_HUB)
        return self

    @property
    def label(self) -> str:
        """Name of the model in tables."""
        return self.hub or self.builtin or str(self.path)
