"""Limits of a base model that its ``config.json`` states, compared with a sweep before anything is started."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from surogate_bench.contract import MODEL_CONFIG_FILE
from surogate_bench.errors import ConfigError
from surogate_bench.specs import RecipeSweep


def require_positions(sweep: RecipeSweep, positions: int | None) -> None:
    """Check that no sequence of a sweep is longer than the model's positions.

    Args:
        sweep: The sweep.
        positions: Positions that the model takes; None if it states no limit.

    Raises:
        ConfigError: one may be longer.
    """
    for field, length in longest_sequences(sweep):
        if positions is not None and length > positions:
            raise ConfigError(
                f"the model takes at most {positions} positions", field=field, value=length, remedy="Lower it."
            )


def longest_sequences(sweep: RecipeSweep) -> Iterator[tuple[str, int]]:
    """Yield the settings that bound the sequences of training and serving, with their values in tokens."""
    yield "training.max_length", sweep.training.max_length
    yield "serving.max_model_len", sweep.serving.max_model_len


def stated_positions(folder: Path) -> int | None:
    """Return ``max_position_embeddings`` of a local model; None if its ``config.json`` does not state it.

    Raises:
        ConfigError: ``config.json`` is not a JSON object.
    """
    value = _settings(folder).get("max_position_embeddings")
    return value if isinstance(value, int) else None


def _settings(folder: Path) -> Mapping[str, object]:
    try:
        settings = json.loads((folder / MODEL_CONFIG_FILE).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _no_object(folder) from error
    if not isinstance(settings, dict):
        raise _no_object(folder)
    return settings


def _no_object(folder: Path) -> ConfigError:
    return ConfigError(
        "is not a model folder: its config.json is not a JSON object",
        field="model.path",
        value=str(folder),
        remedy="Copy the model again.",
    )
