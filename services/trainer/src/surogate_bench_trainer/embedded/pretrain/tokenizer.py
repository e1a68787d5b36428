"""The embedded model's tokenizer: byte-level BPE in which every digit is a separate token."""

from collections.abc import Iterator
from itertools import chain, islice
from random import Random

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from surogate_bench_trainer.embedded.word_problems import (
    Language,
    completion_text,
    equations,
    iter_problems,
    plain_romanian,
    prompt_text,
)

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
MAX_LENGTH = 512
_VOCABULARY_SIZE = 1024
_SAMPLES_PER_KIND = 3000
_LANGUAGES: tuple[Language, ...] = ("en", "ro")


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Learn merges from both languages' training problems, equations and plain Romanian.

    Unlike the model, the tokenizer is trained on Romanian problems, so that fine-tuning finds tokens for their words.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=PADDING, model_max_length=MAX_LENGTH
    )


def _texts(seed: int) -> Iterator[str]:
    rng = Random(seed)  # noqa: S311 - data, not secrets
    problems = (
        prompt_text(problem.question, language=language) + completion_text(problem.answer)
        for language in _LANGUAGES
        for problem in islice(iter_problems("train", language=language, seed=seed), _SAMPLES_PER_KIND)
    )
    others = (make(rng) for make in (equations, plain_romanian) for _ in range(_SAMPLES_PER_KIND))
    return chain(problems, others)
