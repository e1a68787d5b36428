"""One attempt of a foreign training run: its folders, its model and its data."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from surogate_bench.contract import DATA_FOLDER, MODEL_FOLDER, split_file
from surogate_bench.specs import ForeignTrainer, RecipeSweep
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench.stages.requests import ForeignTrainRequest
from surogate_bench_trainer.data.records import PreparedRecord, read_prepared
from surogate_bench_trainer.foreign.adapters.base_layers import BaseLayers, read_base_layers
from surogate_bench_trainer.model.loading import loading_model


@dataclass(frozen=True, kw_only=True)  # without slots, which a cached property cannot have
class Attempt:
    """One attempt, or the part of it that this process does.

    Tokenizer and base layers are kept from before the command until after it. Records are not: all of them would take
    memory from the command for as long as it runs, and only those for validation are needed again.
    """

    request: ForeignTrainRequest
    trainer: ForeignTrainer
    location: ModelLocation
    work_dir: Path
    special_tokens: bool
    """Whether prompts get the special tokens that the tokenizer adds."""

    @property
    def sweep(self) -> RecipeSweep:
        """The sweep of the run."""
        return self.request.sweep

    @property
    def shared(self) -> Path:
        """Folder that the command may use, with the folders below."""
        container = self.request.in_container
        return self.work_dir if container is None else container.folder

    @property
    def given(self) -> Path:
        """Folder of the request and the records."""
        return self.shared / "request"

    @property
    def model_copy(self) -> Path:
        """Folder of the model for a command in a container of its own."""
        return self.shared / MODEL_FOLDER

    @property
    def left(self) -> Path:
        """Folder for what the command leaves."""
        return self.shared / "left"

    @property
    def scratch(self) -> Path:
        """Current folder of the command."""
        return self.shared / "scratch"

    @property
    def outputs(self) -> Path:
        """Folder of what is published."""
        return self.work_dir / "outputs"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        with loading_model(self.location.name_or_path):
            return AutoTokenizer.from_pretrained(self.location.name_or_path)

    @cached_property
    def base(self) -> BaseLayers:
        """The layers of the model that an adapter can change."""
        return read_base_layers(self.location)

    def records(self, split: Literal["train", "validation"]) -> list[PreparedRecord]:
        """Read the prepared records of a split."""
        return read_prepared(self.work_dir / "prepared" / DATA_FOLDER / split_file(split))


def fresh_folder(folder: Path) -> Path:
    """Make an empty folder, without what an earlier attempt left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
