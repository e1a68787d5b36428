"""Seconds and memory of reading, rendering and tokenizing 100,000 records, as the prepare stage does before a training.

Records are like GSM8K's: one of the generated English word problems behind a number, repeated in their thousands with
different numbers. Each shape is read in a process of its own, from JSON lines, with SmolLM2's tokenizer.

    python tests/perf/data_reading.py --model MODEL_FOLDER [--records 100000] [--shapes messages ...]

MODEL_FOLDER has a tokenizer with a chat template, for example the one that the stage prepare of
configs/sweeps/smollm2-135m-chat.yaml stores.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from surogate_bench.specs import DataSpec
from surogate_bench_trainer.data.encoding import encoded
from surogate_bench_trainer.data.rendering import render
from surogate_bench_trainer.embedded.word_problems import split
from surogate_bench_trainer.prepare.dataset.sources import load_splits

DISTINCT = 2000
SHAPES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "question-answer": lambda question, answer: {"question": question, "answer": answer},
    "prompt-completion": lambda question, answer: {"prompt": f"Question: {question}\nAnswer:", "completion": answer},
    "text": lambda question, answer: {"text": f"Question: {question}\nAnswer: {answer}"},
    "messages": lambda question, answer: {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data:
        print(json.dumps(measured(arguments.data, arguments.model)))  # noqa: T201 - read by the parent
        return
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "train.jsonl", shape, arguments.records)
            command = [sys.executable, __file__, "--model", str(arguments.model), "--data", folder]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(json.dumps({"shape": shape, "records": arguments.records} | json.loads(answer)))  # noqa: T201 - a script


def write(path: Path, shape: str, count: int) -> None:
    problems = list(split("train", language="en", size=DISTINCT))
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            first, second = (problems[(number * step) % DISTINCT] for step in (1, 7))
            question = f"{number}. {first.question} {second.question}"
            file.write(json.dumps(SHAPES[shape](question, f"{first.answer}\n{second.answer}")) + "\n")


def measured(folder: Path, model: Path) -> dict[str, object]:
    from transformers import AutoTokenizer  # not part of the measured time

    tokenizer = AutoTokenizer.from_pretrained(model)
    spec = DataSpec(path=folder, validation_size=1)
    began, busy, digest, tokens, counted = time.perf_counter(), time.process_time(), hashlib.sha256(), 0, 0
    splits = load_splits(spec, needs_test=False)
    read = time.perf_counter()
    prepared = {name: render(records, tokenizer, spec, split=name) for name, records in splits.items()}
    rendered = time.perf_counter()
    for records in prepared.values():
        for sample in encoded(records, tokenizer, spec):
            tokens += len(sample.tokens)
            counted += sum(end - start for start, end in sample.ranges("completion"))
            digest.update(array("q", [*sample.tokens, *chain(*sample.ranges("completion"))]).tobytes())
    ended = time.perf_counter()
    return {
        "seconds": round(ended - began, 1),
        "cpu_seconds": round(time.process_time() - busy, 1),
        "reading_s": round(read - began, 1),
        "rendering_s": round(rendered - read, 1),
        "tokenizing_s": round(ended - rendered, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "tokens": tokens,
        "counted": counted,
        "sha256": digest.hexdigest()[:16],
    }


if __name__ == "__main__":
    main()
