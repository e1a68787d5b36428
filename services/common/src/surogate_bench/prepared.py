"""What the prepare stage recorded for the stages after it."""

from surogate_bench.layout import SweepLayout
from surogate_bench.manifest import read_manifest
from surogate_bench.results import PrepareResult
from surogate_bench.store import ObjectStore


def special_tokens(store: ObjectStore, layout: SweepLayout) -> tuple[str, ...] | None:
    """Read which special tokens the tokenizer adds to a prompt, in training as in scoring.

    Returns:
        None where neither adds any: the data was prepared by a version that left them out.

    Raises:
        PermanentError: the manifest cannot be understood.
    """
    prepared = read_manifest(store, layout.prepare)
    if prepared is None or not prepared.result:
        return None
    return PrepareResult.model_validate(prepared.result).special_tokens
