"""Exact match of greedy answers, the metric of a pre-training run."""

import re
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from surogate_bench_trainer.embedded.word_problems import Language, Problem, prompt_text

_FINAL_ANSWER = re.compile(r"#### (-?\d+)")
_MAX_NEW_TOKENS = 128
_BATCH_SIZE = 100


def exact_match(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], *, language: Language
) -> float:
    """Return the fraction of problems whose greedy answer ends with the correct number in GSM8K's format."""
    right = 0
    for first in range(0, len(problems), _BATCH_SIZE):
        batch = problems[first : first + _BATCH_SIZE]
        prompts = [prompt_text(problem.question, language=language) for problem in batch]
        answers = greedy_answers(model, tokenizer, prompts)
        right += sum(
            _final_answer(answer) == _final_answer(problem.answer)
            for answer, problem in zip(answers, batch, strict=True)
        )
    return right / len(problems)


def greedy_answers(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """Generate a greedy answer to each prompt, up to the end-of-text token, in one left-padded batch."""
    inputs = tokenizer(
        list(prompts), return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False
    )
    with torch.inference_mode():
        outputs = model.eval().generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
    answers: list[str] = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def _final_answer(text: str) -> str | None:
    found = _FINAL_ANSWER.search(text)
    return found.group(1) if found else None
