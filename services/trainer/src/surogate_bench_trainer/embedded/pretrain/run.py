"""A pre-training run, from random weights to a model folder."""

import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from surogate_bench.errors import ConfigError, PermanentError
from surogate_bench.files import write_atomically
from surogate_bench_quantization.cpu_products import ensure_fast_bf16_products
from surogate_bench_trainer.embedded.pretrain.evaluation import exact_match
from surogate_bench_trainer.embedded.pretrain.model import build_model
from surogate_bench_trainer.embedded.pretrain.optimization import build_optimizers, schedule
from surogate_bench_trainer.embedded.pretrain.rows import IGNORED_LABEL, iter_batches
from surogate_bench_trainer.embedded.pretrain.settings import PretrainSettings
from surogate_bench_trainer.embedded.pretrain.tokenizer import train_tokenizer
from surogate_bench_trainer.embedded.word_problems import Language, split

RECORD_FILE = "pretraining.json"
_STEPS_PER_LOG_LINE = 100
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRecord:
    """Settings and results of a pre-training run. Accuracies are exact match on validation problems."""

    settings: PretrainSettings
    parameters: int
    tokens: int
    final_loss: float
    english_accuracy: float
    romanian_accuracy: float
    seconds: float
    torch_version: str
    transformers_version: str
    machine: str


def pretrain(out: Path, settings: PretrainSettings) -> PretrainRecord:
    """Train a tokenizer and a model, and write both to ``out`` (bfloat16 safetensors) with a record of the run.

    Raises:
        ConfigError: ``out`` is a file or a folder that is not empty.
        PermanentError: the loss is no longer finite.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "a model is written to a new or empty folder only", field="--out", value=str(out), remedy="Name another."
        )
    started = time.monotonic()
    torch.set_num_threads(settings.threads)
    ensure_fast_bf16_products()
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(settings.seed)
    model = build_model(tokenizer)
    _log.info("%d parameters, %d tokens in the vocabulary", model.num_parameters(), len(tokenizer))
    loss, tokens = _train(model, tokenizer, settings)
    _save(out, model, tokenizer)
    english, romanian = _accuracies(out, settings)
    record = PretrainRecord(
        settings=settings,
        parameters=model.num_parameters(),
        tokens=tokens,
        final_loss=loss,
        english_accuracy=english,
        romanian_accuracy=romanian,
        seconds=round(time.monotonic() - started, 1),
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
        machine=f"{platform.system()} {platform.machine()}, {settings.threads} threads",
    )
    write_atomically(out / RECORD_FILE, (json.dumps(asdict(record), indent=2) + "\n").encode())
    return record


def _train(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings
) -> tuple[float, int]:
    """Run all steps, and return the mean loss over the last of them and the number of tokens."""
    optimizers = build_optimizers(model.train(), settings)
    schedules = [schedule(optimizer, settings) for optimizer in optimizers]
    loss_of = _loss_function(model, compiled=settings.compiled)
    batches = iter_batches(tokenizer, seed=settings.seed, rows=settings.rows, row_length=settings.row_length)
    started, tokens, loss, losses = time.monotonic(), 0, 0.0, list[float]()
    for step, (inputs, labels) in zip(range(1, settings.steps + 1), batches, strict=False):
        loss_now = loss_of(inputs, labels)
        torch.autograd.backward(loss_now)
        for optimizer, its_schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            its_schedule.step()
        losses.append(loss_now.item())
        tokens += int((labels != IGNORED_LABEL).sum())
        if step % _STEPS_PER_LOG_LINE == 0 or step == settings.steps:
            loss = sum(losses) / len(losses)
            losses.clear()
            _check_finite(loss, step)
            speed = tokens / (time.monotonic() - started)
            _log.info("step %d of %d, loss %.4f, %.0f tokens/s", step, settings.steps, loss, speed)
    return loss, tokens


def _loss_function(model: Qwen3ForCausalLM, *, compiled: bool) -> Callable[[Tensor, Tensor], Tensor]:
    def loss_of(inputs: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = model(input_ids=inputs, labels=labels, use_cache=False).loss
        return loss

    return torch.compile(loss_of) if compiled else loss_of


def _check_finite(loss: float, step: int) -> None:
    if not loss < float("inf"):
        raise PermanentError(f"the loss became {loss} before step {step}: lower the learning rates")


def _save(out: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _accuracies(out: Path, settings: PretrainSettings) -> tuple[float, float]:
    """Return the exact match in English and Romanian of the saved model."""
    model = Qwen3ForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)

    def accuracy(language: Language) -> float:
        problems = split("validation", language=language, size=settings.validation_size)
        return exact_match(model, tokenizer, problems, language=language)

    return accuracy("en"), accuracy("ro")
