"""How a sweep names adapters that were trained elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import small_document, small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.specs import load_sweep


def adapter(**changes: Any) -> dict[str, Any]:
    return {"name": "theirs", "hub": "lab/adapter"} | changes


def test_a_sweep_without_adapters_has_the_hash_that_it_always_had() -> None:
    assert small_sweep(adapters=[]).spec_hash == small_sweep().spec_hash
    assert small_sweep(adapters=[adapter()]).spec_hash != small_sweep().spec_hash


def test_a_local_folder_is_relative_to_the_sweep_file(tmp_path: Path) -> None:
    document = small_document(adapters=[{"name": "theirs", "path": "adapters/theirs"}])
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (found,) = load_sweep(tmp_path / "sweep.yaml").adapters
    assert found.path == tmp_path / "adapters" / "theirs"


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        (adapter(name="../up"), "adapters.0.name", "match pattern"),
        (adapter(name="base"), "adapters.base.name", "is the name of another row or run"),
        (adapter(name="bf16"), "adapters.bf16.name", "is the name of another row or run"),
        (adapter(name="bf16-s0"), "adapters.bf16-s0.name", "is the name of another row or run"),
        (adapter(hub="a/../b"), "adapters.0.hub", "match pattern"),
        (adapter(revision="refs/../../x"), "adapters.0", "no name of a branch"),
        (adapter(revision="--help"), "adapters.0.revision", "match pattern"),
        (adapter(path="/theirs"), "adapters.0", "set exactly one of path, url, hub"),
        ({"name": "theirs"}, "adapters.0", "none given"),
        ({"name": "theirs", "path": "/theirs", "revision": "main"}, "adapters.0", "revision only applies to hub"),
        ({"name": "theirs", "url": "http://server/file"}, "adapters.0.url", "match pattern"),
        ({"name": "theirs", "url": "file:///etc/passwd"}, "adapters.0.url", "match pattern"),
        (adapter(trained_under="fp7"), "adapters.theirs.trained_under", "there is no such recipe"),
        (adapter(trained_by="us"), "adapters.0.trained_by", "no such field"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_field(entry: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        small_sweep(adapters=[entry])
    assert caught.value.field == field


def test_two_adapters_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="is the name of another row or run"):
        small_sweep(adapters=[adapter(), adapter(hub="lab/other")])


def test_a_recipe_of_the_sweep_or_a_built_in_one_may_have_trained_an_adapter() -> None:
    sweep = small_sweep(adapters=[adapter(trained_under="qbnb"), adapter(name="others", trained_under="bf16")])
    assert sweep.adapter("theirs").trained_under == "qbnb"


@pytest.mark.parametrize(("trained_under", "problem"), [(None, "is not known"), ("qbnb", "does not have the recipe")])
def test_an_adapter_whose_training_the_sweep_does_not_know_is_not_served_under_its_own(
    trained_under: str | None, problem: str
) -> None:
    entry = adapter() if trained_under is None else adapter(trained_under=trained_under)
    with pytest.raises(ConfigError, match=problem) as caught:
        small_sweep(adapters=[entry], serving={"under": ["own"]})
    assert caught.value.field == "adapters.theirs.trained_under"
    small_sweep(adapters=[adapter(trained_under="bf16")], serving={"under": ["own"]})
    small_sweep(recipes=["bf16", "qbnb"], adapters=[adapter(trained_under="qbnb")], serving={"under": ["own"]})
