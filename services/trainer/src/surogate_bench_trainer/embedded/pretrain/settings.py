"""What a pre-training run is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """One run. Its length is given in steps, so that the same settings give the same model on the same machine.

    Attributes:
        seed: Seeds the initial weights and the order of the texts.
        steps: Optimizer steps.
        rows: Packed rows a step.
        row_length: Tokens a row.
        matrix_lr: Peak learning rate of Muon, for the layers' matrices.
        other_lr: Peak learning rate of AdamW, for the embedding and the norms.
        warmup_steps: Steps over which the learning rates rise linearly.
        constant_until: Share of the steps after which the learning rates fall linearly to zero.
        validation_size: Problems of each language that the finished model answers.
        threads: CPU threads; another number gives other rounding, hence another model.
        compiled: Whether the forward and backward pass go through ``torch.compile``, which needs a C++ compiler.
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
