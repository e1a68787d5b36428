"""Variables of the Hugging Face libraries that cannot work are named before anything starts."""

from pathlib import Path

import pytest
from sweeps import small_sweep

from surogate_bench.errors import ConfigError
from surogate_bench.inputs.hub_environment import check_hub_environment
from surogate_bench.specs import RecipeSweep

MODEL = {"model": {"hub": "owner/model"}}
DATA = {"data": {"hub": "owner/data"}}
VARIABLES = (
    "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def refused(sweep: RecipeSweep) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_hub_environment(sweep)
    return caught.value


@pytest.mark.parametrize("changes", [MODEL, DATA])
@pytest.mark.parametrize("value", ["huggingface.co", "localhost:8080", "", "ftp://x", "http://"])
def test_an_endpoint_without_scheme_or_host_is_refused(
    changes: dict[str, object], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", value)
    error = refused(small_sweep(**changes))
    assert (error.field, error.value) == ("HF_ENDPOINT", value)
    assert "https://huggingface.co" in error.remedy


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("HF_HOME", MODEL), ("HF_HUB_CACHE", MODEL), ("XDG_CACHE_HOME", MODEL), ("HF_HOME", DATA),
        ("HF_DATASETS_CACHE", DATA),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["/proc/nowhere", "file", ""])
def test_a_cache_that_cannot_be_written_is_refused_by_its_variable(
    name: str, changes: dict[str, object], value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    value = str(tmp_path / "file") if value == "file" else value
    monkeypatch.setenv(name, value)
    error = refused(small_sweep(**changes))
    assert (error.field, error.value) == (name, value)


def test_a_home_folder_that_cannot_hold_the_cache_leads_to_the_variable_that_moves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    error = refused(small_sweep(**MODEL))
    assert error.field == "HF_HOME"
    assert "is not set, and its default cannot be used" in error.problem


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("HF_HUB_OFFLINE", MODEL), ("TRANSFORMERS_OFFLINE", MODEL), ("HF_HUB_OFFLINE", DATA),
        ("HF_DATASETS_OFFLINE", DATA),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_with_nothing_in_the_cache_names_the_switch(
    name: str, changes: dict[str, object], value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    error = refused(small_sweep(**changes))
    assert (error.field, error.value) == (name, value)
    assert "is not in the cache" in error.problem
    assert "hf download" in error.remedy


def test_offline_with_a_filled_cache_is_fine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models--owner--model", "datasets--owner--data"):
        snapshot = home / ".cache/huggingface/hub" / name / "snapshots" / "0"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").touch()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check_hub_environment(small_sweep(**MODEL, **DATA))


def test_online_with_an_empty_cache_is_fine_and_so_is_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    check_hub_environment(small_sweep(**MODEL, **DATA))


def test_a_sweep_without_the_hub_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "nonsense")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check_hub_environment(small_sweep())


def test_data_of_further_tasks_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    further = {"name": "en", "data": {"hub": "owner/questions"}}
    error = refused(small_sweep(evaluation={"tasks": ["ro_gsm8k", further]}))
    assert error.field == "HF_HUB_OFFLINE"
    assert "owner/questions is not in the cache" in error.problem
    assert "evaluation.tasks.en.data.path" in error.remedy
