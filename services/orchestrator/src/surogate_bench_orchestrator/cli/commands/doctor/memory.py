"""An estimate of the GPU memory of a training run, from the model's configuration alone.

It adds up what is kept: weights, operands, LoRA with its optimizer, the tensors that the backward pass needs, and the
logits of counted tokens. For the one case that has been measured (Qwen3-0.6B's shape on an H100, docs/benchmarks.md)
it is within a tenth of the peak.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from surogate_bench.recipes import Recipe, WeightStorage
from surogate_bench.recipes.precisions import COMPUTES, STORAGES
from surogate_bench.specs.lora import LoraSpec
from surogate_bench.specs.training import TrainingSpec

_BF16 = 2
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_WITHOUT_GATE = frozenset({"apertus", "arcee", "gpt_neox", "jais2", "opt", "phi", "starcoder2"})
"""Architectures (``model_type``) whose feed-forward network has two matrices."""
_LORA_BYTES = 16
"""Bytes of a parameter of LoRA: fp32 value, gradient and two moments."""
_HIDDEN_BYTES, _HEAD_BYTES, _MLP_BYTES = 14, 10, 8
"""Kept for each token and layer, by width: two norms in fp32 and three bf16 tensors; a norm and three; four."""
_COUNTED = 0.5
"""Share of tokens that count in the loss where only completions do."""
_LOSS_BUFFERS = 512 * 2**20
"""Two chunks of fp32 logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Widths of a dense transformer."""

    hidden: int
    intermediate: int
    layers: int
    queries: int
    """Heads times head size."""
    keys: int
    """Key-value heads times head size."""
    vocabulary: int
    tied: bool
    gated: bool
    """Whether the feed-forward network has a third matrix, a gate."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> Self | None:
        """Read ``config.json``; None for a model that is not a dense transformer with the usual names."""
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        found = [value for name in names if isinstance(value := config.get(name), int) and value > 0]
        if len(found) != len(names) or any("expert" in name for name in config):
            return None
        hidden, intermediate, layers, heads, vocabulary = found
        size, kv_heads = config.get("head_dim"), config.get("num_key_value_heads")
        head = size if isinstance(size, int) else hidden // heads
        return cls(
            hidden=hidden,
            intermediate=intermediate,
            layers=layers,
            queries=heads * head,
            keys=(kv_heads if isinstance(kv_heads, int) else heads) * head,
            vocabulary=vocabulary,
            tied=bool(config.get("tie_word_embeddings", False)),
            gated=config.get("model_type") not in _WITHOUT_GATE,
        )

    @property
    def block_weights(self) -> int:
        """Elements of the linear layers of all blocks."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.widths.values())

    @property
    def widths(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers of a block."""
        gate = {"gate_proj": (self.hidden, self.intermediate)} if self.gated else {}
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            **gate,
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }


def estimate_training_bytes(
    shape: ModelShape, recipe: Recipe, training: TrainingSpec, *, lora_parameters: int | None = None
) -> int:
    """Estimate the peak of a training run's GPU memory, in bytes.

    Args:
        shape: The model.
        recipe: Its storage and products.
        training: Micro-batch, length and LoRA.
        lora_parameters: Elements of the adapter, if they are known; otherwise those on layers named as Llama's.
    """
    embeddings = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden * _BF16
    weights = stored_weight_bytes(shape, recipe) + _covered_weights(shape, recipe) * _operand_bytes(recipe)
    lora = (_lora_weights(shape, training.lora) if lora_parameters is None else lora_parameters) * _LORA_BYTES
    tokens = training.micro_batch_size * training.max_length
    a_token = (
        _HIDDEN_BYTES * shape.hidden + _HEAD_BYTES * (shape.queries + shape.keys) + _MLP_BYTES * shape.intermediate
    )
    counted = tokens * (_COUNTED if training.loss_on == "completion" else 1)
    logits = counted * shape.vocabulary * 2 * _BF16 + _LOSS_BUFFERS
    return int(embeddings + weights + lora + tokens * shape.layers * a_token + logits)


def stored_weight_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """Return the bytes of the blocks' linear layers as a recipe stores them, those that stay in bf16 included."""
    covered = _covered_weights(shape, recipe)
    return int(covered * STORAGES[recipe.weight_storage].bytes_per_weight + (shape.block_weights - covered) * _BF16)


def _covered_weights(shape: ModelShape, recipe: Recipe) -> int:
    """Return the elements of the linear layers that a recipe neither skips nor keeps in bf16."""
    blocks = max(0, shape.layers - recipe.skip_first_layers - recipe.skip_last_layers)
    return blocks * sum(
        inputs * outputs
        for inputs, outputs in shape.widths.values()
        if recipe.on_indivisible != "keep" or recipe.fits(inputs, outputs)
    )


def _lora_weights(shape: ModelShape, lora: LoraSpec) -> int:
    """Return the elements of all adapters, on layers named as Llama's."""
    named = {
        f"model.layers.{index}.{'self_attn' if name in _ATTENTION else 'mlp'}.{name}": width
        for index in range(shape.layers)
        for name, width in shape.widths.items()
    }
    return sum(lora.rank_of(layer) * sum(width) for layer, width in named.items() if lora.targets(layer))


def _operand_bytes(recipe: Recipe) -> float:
    """Bytes per weight of the operands that are kept in addition to the storage."""
    compute = COMPUTES[recipe.compute]
    return compute.operand_bytes if recipe.weight_storage is WeightStorage.BF16 else compute.packed_operand_bytes
