"""Setup of a run: the base model with recipe and adapters, and the data as batches."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from surogate_bench.recipes import Recipe
from surogate_bench.specs import RecipeSweep
from surogate_bench.specs.model import ModelSpec
from surogate_bench.stages.model_source import ModelLocation
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_quantization.engines import select_engine
from surogate_bench_trainer.data.batches import PackedBatch, batches_of
from surogate_bench_trainer.data.encoding import Sample, encode
from surogate_bench_trainer.data.packing import pack
from surogate_bench_trainer.data.records import PreparedRecord
from surogate_bench_trainer.data.schedule import BatchSchedule, schedule_batches
from surogate_bench_trainer.model.attention.packed import IMPLEMENTATION
from surogate_bench_trainer.model.captured_passes import CapturedPasses
from surogate_bench_trainer.model.lean_layers import make_lean
from surogate_bench_trainer.model.loading import check_loaded, loading_model
from surogate_bench_trainer.model.lora import attach_lora
from surogate_bench_trainer.model.passes import Passes, PlainPasses
from surogate_bench_trainer.model.recipe import AppliedRecipe, apply_recipe
from surogate_bench_trainer.training.learner import Learner
from surogate_bench_trainer.training.optimizer import FlatAdamW


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Training samples, their schedule, and the validation split."""

    samples: list[Sample]
    schedule: BatchSchedule
    validation: list[PackedBatch]


def configure_process(threads: int | None) -> None:
    """Have this process use ``threads`` CPU threads (all if None), and multiply bf16 with the fastest products."""
    ensure_fast_bf16_products()
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"


def training_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def load_base(location: ModelLocation, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model in bf16 with packed attention, and its tokenizer.

    Raises:
        ConfigError: the model does not exist or cannot be loaded, tensors are missing or not finite, or the device does
            not support its attention.
        TransientError: the hub cannot be reached.
    """
    with loading_model(location.name_or_path):
        tokenizer = AutoTokenizer.from_pretrained(location.name_or_path)
        model, loading = AutoModelForCausalLM.from_pretrained(
            location.name_or_path,
            dtype=torch.bfloat16,
            attn_implementation=IMPLEMENTATION,
            use_safetensors=True,
            output_loading_info=True,
        )
    check_loaded(model, loading, device)
    make_lean(model)
    return model.to(device), tokenizer


def build_learner(
    base: PreTrainedModel, sweep: RecipeSweep, recipe: Recipe, *, seed: int, steps: int, capture: bool = True
) -> Learner:
    """Apply the recipe, attach LoRA and create the optimizer. LoRA is initialized from the seed alone.

    Args:
        base: From :func:`load_base`.
        sweep: Provides the settings of LoRA and optimizer, and the engine.
        recipe: The recipe to apply.
        seed: Seed of LoRA's initial weights and of stochastic rounding.
        steps: Length of the learning-rate schedule.
        capture: Whether to capture passes as CUDA graphs on a GPU.

    Raises:
        UnsupportedRecipeError: no engine can run the recipe on this device.
        ConfigError: the recipe does not fit the model.
    """
    torch.manual_seed(seed)
    engine = select_engine(recipe, base.device, sweep.engine)
    applied: AppliedRecipe = apply_recipe(base, recipe, engine=engine, seed=seed)
    model = attach_lora(base, sweep.training.lora, base_model=public_name(sweep.model), seed=seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = FlatAdamW(parameters, sweep.training, total_steps=steps)
    passes: Passes = PlainPasses(model)
    if capture and base.device.type == "cuda":
        passes = CapturedPasses(model, applied.session.generators)
    return Learner(model=model, recipe=applied, optimizer=optimizer, passes=passes)


def public_name(model: ModelSpec) -> str:
    """Return the base model's name for the adapter's configuration, which never contains a local path."""
    return model.path.name if model.path is not None else model.label


def build_data(
    splits: Mapping[str, Sequence[PreparedRecord]],
    tokenizer: PreTrainedTokenizerBase,
    sweep: RecipeSweep,
    *,
    seed: int,
    device: torch.device,
    special_tokens: bool = True,
) -> TrainingData:
    """Tokenize ``train`` and ``validation``, schedule training, and pack validation.

    Prompts get the special tokens that the tokenizer adds, unless ``special_tokens`` is False.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    training = sweep.training
    samples = encode(splits["train"], tokenizer, sweep.data, special_tokens=special_tokens)
    return TrainingData(
        samples=samples,
        schedule=schedule_batches([len(sample.tokens) for sample in samples], training, seed=seed),
        validation=validation_batches(
            splits["validation"], tokenizer, sweep, device=device, special_tokens=special_tokens
        ),
    )


def validation_batches(
    records: Sequence[PreparedRecord],
    tokenizer: PreTrainedTokenizerBase,
    sweep: RecipeSweep,
    *,
    device: torch.device,
    special_tokens: bool,
) -> list[PackedBatch]:
    """Tokenize ``validation`` as :func:`build_data` does, and pack it even if training is not packed.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """
    samples = encode(records, tokenizer, sweep.data, special_tokens=special_tokens)
    rows = pack([len(sample.tokens) for sample in samples], sweep.training.max_length)
    size = sweep.training.micro_batch_size
    groups = [[index for row in rows[start : start + size] for index in row] for start in range(0, len(rows), size)]
    return batches_of(samples, groups, sweep.training.loss_on, device)
