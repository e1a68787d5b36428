"""Fixtures of the tests of foreign trainers."""

from pathlib import Path

import pytest
from models.foreign_adapters import make_adapter

from surogate_bench.specs import LoraSpec


@pytest.fixture(scope="module")
def template(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the form that the sweeps ask for, saved by PEFT."""
    folder = tmp_path_factory.mktemp("template")
    return make_adapter(model_folder, folder, target_modules=list(LoraSpec().target_modules))
