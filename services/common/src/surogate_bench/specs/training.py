"""Training settings, the same for every recipe of a sweep."""

from typing import Literal, Self

from pydantic import Field, model_validator

from surogate_bench.specs.base import Spec
from surogate_bench.specs.lora import LoraSpec

ONE_LENGTH = "set exactly one of epochs and max_steps"
GPUS_SHARE_EVENLY = (
    "gpus must divide gradient_accumulation_steps, as the GPUs share the forward passes of an optimizer step: set "
    "gradient_accumulation_steps to a multiple of gpus, or gpus to a divisor of it"
)


class TrainingSpec(Spec):
    """Optimizer (AdamW), schedule, packing and validation."""

    lora: LoraSpec = LoraSpec()
    epochs: float | None = Field(None, gt=0, description="Passes over the training set; alternatively max_steps.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; alternatively epochs.")
    packing: bool = Field(
        True,
        description="Pack several samples into one sequence of max_length tokens; attention never crosses samples.",
    )
    max_length: int = Field(
        2048, ge=16, description="Tokens per sequence. A longer sample is an error, and never truncated."
    )
    micro_batch_size: int = Field(2, ge=1, description="Sequences per forward pass.")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Forward passes per optimizer step.")
    gpus: int = Field(
        1,
        ge=1,
        le=64,
        exclude_if=lambda value: value == 1,
        description="GPUs of one machine that train each run together, with a process for each; where there are no "
        "GPUs, processes that share the CPU. Divides gradient_accumulation_steps; the batch stays the same.",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate.")
    lr_scheduler: Literal["linear", "cosine", "constant"] = Field("linear", description="Schedule after the warmup.")
    warmup_steps: int = Field(20, ge=0, description="Optimizer steps of linear warmup.")
    weight_decay: float = Field(0.001, ge=0, description="Decoupled weight decay.")
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0, description="Global gradient-norm clipping.")
    loss_on: Literal["completion", "all"] = Field(
        "completion",
        description="Tokens that are included in the loss: the answer only (as in the reference), or also the prompt.",
    )
    eval_steps: int = Field(25, ge=1, description="Optimizer steps between validations.")
    checkpoint_steps: int = Field(50, ge=1, description="Optimizer steps between checkpoints.")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError(ONE_LENGTH)
        return self

    @model_validator(mode="after")
    def _gpus_share_evenly(self) -> Self:
        if self.gradient_accumulation_steps % self.gpus:
            raise ValueError(
                f"{GPUS_SHARE_EVENLY} (gpus is {self.gpus}, gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps})"
            )
        return self
