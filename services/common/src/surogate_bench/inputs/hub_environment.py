"""Environment variables of the Hugging Face libraries, checked first, so that errors name the variable.

The variables and the cache's layout are described at
https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables and
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from surogate_bench.contract import (
    DATASETS_OFFLINE_VARIABLE,
    HUB_ENDPOINT_VARIABLE,
    HUB_HOME_VARIABLE,
    HUB_OFFLINE_VARIABLE,
    TRANSFORMERS_OFFLINE_VARIABLE,
)
from surogate_bench.errors import ConfigError
from surogate_bench.specs.sweep import RecipeSweep
from surogate_bench.specs.task_errors import data_field
from surogate_bench.user_paths import expand_home
from surogate_bench.variables import is_on, require_address

HUB_ADDRESS = "https://huggingface.co"
"""Address of the hub unless HF_ENDPOINT has another."""
OFFLINE_SWITCHES = (HUB_OFFLINE_VARIABLE, TRANSFORMERS_OFFLINE_VARIABLE)
"""Variables that disable requests to the hub."""


@dataclass(frozen=True, slots=True)
class _Cache:
    """A cache folder, and the variable that moves it."""

    variable: str
    folder: Path


def check_hub_environment(sweep: RecipeSweep) -> None:
    """Check what a sweep needs from the hub: a valid address, a writable cache, and the files if offline.

    Does nothing for a sweep that uses no hub model, adapters, or data, of further tasks too.

    Raises:
        ConfigError: names the variable, its value and the remedy.
    """
    adapters = [adapter for adapter in sweep.adapters if adapter.hub is not None]
    data_sets = data_on_hub(sweep)
    if sweep.model.hub is None and not data_sets and not adapters:
        return
    endpoint = os.environ.get(HUB_ENDPOINT_VARIABLE)
    if endpoint is not None:
        require_address(HUB_ENDPOINT_VARIABLE, endpoint, example=HUB_ADDRESS)
    hub = _cache("HF_HUB_CACHE", "hub")
    data = _cache("HF_DATASETS_CACHE", "datasets")
    if sweep.model.hub is not None:
        _check_offline(
            "model", sweep.model.hub, OFFLINE_SWITCHES, [hub.folder / _repository("models", sweep.model.hub)]
        )
    for adapter in adapters:
        name = str(adapter.hub)
        _check_offline(f"adapters.{adapter.name}", name, OFFLINE_SWITCHES, [hub.folder / _repository("models", name)])
    switches = (DATASETS_OFFLINE_VARIABLE,) if DATASETS_OFFLINE_VARIABLE in os.environ else OFFLINE_SWITCHES
    for section, name in data_sets.items():
        places = [hub.folder / _repository("datasets", name), data.folder / name.replace("/", "___")]
        _check_offline(section, name, switches, places)
    for cache in (hub, data) if data_sets else (hub,):
        _check_writable(cache)


def data_on_hub(sweep: RecipeSweep) -> dict[str, str]:
    """Return the data sets that a sweep loads from the hub, by the section that names them."""
    tasks = {data_field(entry.name): entry.data.hub for entry in sweep.evaluation.tasks if entry.data is not None}
    return {section: name for section, name in {"data": sweep.data.hub, **tasks}.items() if name is not None}


def _cache(variable: str, name: str) -> _Cache:
    """Return the location of a cache, as the libraries determine it."""
    for each in (variable, HUB_HOME_VARIABLE, "XDG_CACHE_HOME"):
        value = os.environ.get(each)
        if value is None:
            continue
        if not value:
            raise ConfigError("is empty", field=each, value=value, remedy="Unset it, or set it to a folder.")
        below = {variable: (), HUB_HOME_VARIABLE: (name,), "XDG_CACHE_HOME": ("huggingface", name)}[each]
        return _Cache(each, expand_home(value, field=each).joinpath(*below))
    return _Cache(HUB_HOME_VARIABLE, expand_home("~/.cache/huggingface", field=HUB_HOME_VARIABLE) / name)


def _repository(kind: str, name: str) -> str:
    return f"{kind}--{name.replace('/', '--')}"


def _check_offline(section: str, name: str, switches: tuple[str, ...], places: list[Path]) -> None:
    switch = next((each for each in switches if is_on(os.environ.get(each))), None)
    if switch is not None and not any(_has_files(place) for place in places):
        raise ConfigError(
            f"disables requests to the hub, and {name} is not in the cache ({places[0]})",
            field=switch,
            value=os.environ[switch],
            remedy=f"Unset it, fill the cache first (`hf download {name}`), or give a folder as {section}.path.",
        )


def _has_files(place: Path) -> bool:
    return next((path for path in place.rglob("*") if path.is_file()), None) is not None


def _check_writable(cache: _Cache) -> None:
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache.folder):
            pass
    except OSError as error:
        default = "" if cache.variable in os.environ else "is not set, and its default "
        raise ConfigError(
            f"{default}cannot be used as a cache: {error.strerror}",
            field=cache.variable,
            value=os.environ.get(cache.variable, str(cache.folder)),
            remedy=f"Set {cache.variable} to a folder that you may write.",
        ) from error
