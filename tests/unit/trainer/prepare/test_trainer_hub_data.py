"""Data sets of the Hugging Face hub: read as local files are, and refused with what to do."""

from typing import Any

import pytest
from datasets.exceptions import DatasetNotFoundError

from surogate_bench.errors import ConfigError, TransientError
from surogate_bench.specs import DataSpec
from surogate_bench_trainer.prepare.dataset.sources import load_splits


def test_an_unreachable_hub_is_a_transient_error_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TransientError, match=r"some-org/some-data cannot be loaded.*local folder"):
        load_splits(DataSpec(hub="some-org/some-data"))


def test_hub_records_are_checked_like_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = {"question": "q", "answer": "#### 1"}, {"question": "q", "answer": None}
    asked = []

    def load(*arguments: Any, **options: Any) -> dict[str, list[Any]]:
        asked.append((arguments, options))
        return {"train": [good] * 4, "test": [good, bad], "other": [{}]}

    monkeypatch.setattr("datasets.load_dataset", load)
    spec = DataSpec(hub="some-org/some-data", config="main", revision="v2", validation_size=1)
    with pytest.raises(ConfigError) as caught:
        load_splits(spec)
    assert caught.value.field == "data.test:2"
    assert asked == [(("hf://datasets/some-org/some-data", "main"), {"revision": "v2"})]
    bad["answer"] = "#### 2"
    assert {name: len(records) for name, records in load_splits(spec).items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


def test_a_data_set_the_hub_does_not_know_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise DatasetNotFoundError("Dataset 'some-org/nothing' doesn't exist on the Hub")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(ConfigError, match=r"data.hub: cannot be loaded: Dataset 'some-org/nothing' doesn't exist"):
        load_splits(DataSpec(hub="some-org/nothing"))


def test_the_name_of_a_file_format_is_no_data_set_of_the_hub() -> None:
    with pytest.raises(ConfigError, match=r"data\.hub: is the name of a file format.*got 'csv'.*Write OWNER/NAME"):
        load_splits(DataSpec(hub="csv"))
