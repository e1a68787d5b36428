"""What holds for every test with real servers."""

from collections.abc import Iterator

import pytest

COVERAGE_VARIABLE = "COVERAGE_PROCESS_CONFIG"
"""Set by coverage's patch for subprocesses."""


@pytest.fixture(scope="package", autouse=True)
def processes_without_coverage() -> Iterator[None]:
    """Do not measure what is started here: it costs a third of the time, and the unit tests reach the same lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(COVERAGE_VARIABLE, raising=False)
        yield
