"""What holds for every test: which examples hypothesis draws, the order, and how a test process ends."""

import atexit
import faulthandler
import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: workers side by side must not each use every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("new examples", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples in every run: a result depends on the code alone, not on the draw. `make fuzz` draws new ones.
settings.register_profile("same examples", settings.get_profile("new examples"), derandomize=True)
settings.load_profile("same examples")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take minutes, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


def pytest_collection_finish() -> None:
    """Let no later garbage collection look at the millions of objects of imported packages, which takes a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the result for the very end."""
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End without tearing the interpreter down, once everything is written.

    One process holds torch's, Go's (Helm's SDK), Rust's (the object store's) and vLLM's runtimes here; together they
    have been seen to abort while they were taken down, after the last test had passed. No product process has them all.
    """
    status = config.stash.get(_STATUS, None)
    if status is None or hasattr(config, "workerinput"):
        return
    faulthandler.enable(sys.__stderr__ or 2)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


_STATUS = pytest.StashKey[int]()
