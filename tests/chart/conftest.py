"""Fixtures of the chart's tests."""

from typing import Any

import pytest
from chart_rendering import (
    HELM,
    INSTALLATIONS,
    Render,
    Rendered,
    by_command,
    by_library,
    library,
    rendered_from,
)


@pytest.fixture(scope="session")
def render() -> Render:
    """Render the chart: ``render(values, name=..., namespace=...)``."""
    if library() is None and HELM is None:
        pytest.skip("neither helm-python-sdk nor helm is installed")

    def call(values: dict[str, Any] | None = None, *, name: str = "demo", namespace: str = "default") -> Rendered:
        engine = by_command if library() is None else by_library
        return rendered_from(engine(values or {}, name, namespace))

    return call


@pytest.fixture(params=INSTALLATIONS, scope="session")
def installation(request: pytest.FixtureRequest, render: Render) -> Rendered:
    """One of the installations above, rendered."""
    values, name, namespace = INSTALLATIONS[request.param]
    return render(values, name=name, namespace=namespace)
