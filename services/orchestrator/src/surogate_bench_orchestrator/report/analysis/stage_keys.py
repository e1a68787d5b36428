"""The stage of a run that a result belongs to."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKey:
    """One stage among those of its run."""

    kind: Literal["training", "foreign training", "import", "evaluation"]
    """``foreign training`` is that of a foreign trainer, made by other software by design."""
    under: str | None = None
    """Recipe that the base was served under; None for the base as published."""
    merged: bool = False
    task: str | None = None
    """A further task; None for the primary one."""

    @property
    def label(self) -> str:
        """Name of the stage in a sentence."""
        return self.called(self.kind)

    def called(self, kind: str) -> str:
        """Return a label that uses ``kind`` as the name of the stage."""
        parts = [
            "merged" if self.merged else "",
            kind,
            f"under {self.under}" if self.under else "",
            f"of {self.task}" if self.task else "",
        ]
        return " ".join(part for part in parts if part)
