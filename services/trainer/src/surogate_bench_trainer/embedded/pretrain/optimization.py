"""Muon for the layers' matrices, AdamW for the rest, one schedule for both."""

from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from surogate_bench_trainer.embedded.pretrain.settings import PretrainSettings

_MATRIX_DIMENSIONS = 2


def build_optimizers(model: nn.Module, settings: PretrainSettings) -> tuple[Optimizer, Optimizer]:
    """Create Muon (https://kellerjordan.github.io/posts/muon/) for all matrices but the embedding, else AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == _MATRIX_DIMENSIONS and "embed" not in name
        (matrices if is_matrix else others).append(parameter)
    muon = Muon(matrices, lr=settings.matrix_lr, weight_decay=0.02, momentum=0.95)
    return muon, AdamW(others, lr=settings.other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)


def schedule(optimizer: Optimizer, settings: PretrainSettings) -> LambdaLR:
    """Create the schedule that applies ``lr_factor`` to the optimizer's learning rate."""
    return LambdaLR(optimizer, lambda step: lr_factor(step, settings))


def lr_factor(step: int, settings: PretrainSettings) -> float:
    """Return the fraction of the peak learning rate at ``step`` (from 0): warmup, constant, linear decay to zero."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    remaining = (settings.steps - step) / settings.steps
    return warmup * min(1.0, remaining / (1.0 - settings.constant_until))
