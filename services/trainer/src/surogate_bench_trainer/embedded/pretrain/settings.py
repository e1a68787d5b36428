"""Settings of a pre-training run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """Settings of one run. Its length is a number of steps, so equal settings give equal models on the same machine.

    Attributes:
        seed: Seed of the initial weights and of the order of the texts.
        steps: Optimizer steps.
        rows: Packed rows per step.
        row_length: Tokens per row.
        matrix_lr: Peak learning rate of Muon, for the layers' matrices.
        other_lr: Peak learning rate of AdamW, for the embedding and the norms.
        warmup_steps: Steps over which the learning rates rise linearly.
        constant_until: Fraction of the steps after which the learning rates decay linearly to zero.
        validation_size: Validation problems of each language that the trained model answers.
        threads: CPU threads. Their number affects rounding, and so the model.
        compiled: Whether to use ``torch.compile``, which needs a C++ compiler.
    """

    seed: int = 0
    steps: int = 3000
    rows: int = 12
    row_length: int = 160
    matrix_lr: float = 0.02
    other_lr: float = 4e-3
    warmup_steps: int = 50
    constant_until: float = 0.4
    validation_size: int = 500
    threads: int = 2
    compiled: bool = False
