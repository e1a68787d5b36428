"""Functions by which later stages read the result of the prepare stage."""

from collections.abc import Mapping

from surogate_bench.layout import SweepLayout
from surogate_bench.results import PrepareResult
from surogate_bench.specs.data import DataSpec
from surogate_bench.stages.publication import read_result
from surogate_bench.store.object_store import ObjectStore


def special_tokens(store: ObjectStore, layout: SweepLayout) -> tuple[str, ...] | None:
    """Read which special tokens the tokenizer adds to a prompt, in training and in scoring alike.

    Returns:
        None where neither adds any: the data was prepared by a version that left them out.

    Raises:
        PermanentError: the manifest cannot be parsed.
    """
    prepared = read_result(store, layout.prepare, PrepareResult)
    return None if prepared is None else prepared.special_tokens


def answer_ends(store: ObjectStore, layout: SweepLayout) -> tuple[int, ...] | None:
    """Read at which tokens answers end where the tokenizer has no end-of-text token; None where it has one.

    Raises:
        PermanentError: the manifest cannot be parsed.
    """
    prepared = read_result(store, layout.prepare, PrepareResult)
    return None if prepared is None else prepared.answer_ends


def prompt_and_completion(record: Mapping[str, str], data: DataSpec) -> tuple[str, str]:
    """Return the texts of a prepared record with question and answer, or with prompt and completion as they are."""
    if "prompt" in record:
        return record["prompt"], record["completion"]
    prompt = data.prompt.replace("{question}", record["question"])
    return prompt, data.completion.replace("{answer}", record["answer"])
