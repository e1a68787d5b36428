"""Log why a request to a remote store takes long, so that the process does not appear to hang.

The library repeats a request by itself and logs nothing until it gives up. Therefore, after a few seconds, a separate
request without retries determines the cause. If the store answers it, the store is only slow (a large upload), and
nothing is logged.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import BaseError

from surogate_bench.store.errors import is_absence, why_away

_log = logging.getLogger(__name__)

NOTICE_AFTER = timedelta(seconds=5)
_KEY = ".probes/waiting"


class WaitingNotice:
    """Watches requests to one store.

    Args:
        url: URL of the store.
        probe: The library's store, with no retries and a short timeout.
        patience: How long the library repeats a request; part of the message.
        after: How long a request may take before the store is probed.
    """

    def __init__(self, url: str, probe: Any, *, patience: timedelta, after: timedelta) -> None:  # noqa: ANN401 - a class per provider
        self._url = url
        self._probe = probe
        self._patience = patience
        self._after = after

    @contextmanager
    def watch(self, *, writes: bool) -> Iterator[None]:
        """Watch one request: log a warning if it waits, and another message once it has completed.

        Args:
            writes: Whether the request writes: a full store serves only reads.
        """
        ended, warned = threading.Event(), threading.Event()
        timer = threading.Timer(self._after.total_seconds(), self._warn, (writes, ended, warned))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            ended.set()
        if warned.is_set():
            _log.warning("the store %s responds again", self._url)

    def _warn(self, writes: bool, ended: threading.Event, warned: threading.Event) -> None:
        problem = self._find_problem(writes)
        if problem is None or ended.is_set():
            return
        warned.set()
        _log.warning(
            "waiting for the store %s: %s; a request is abandoned after %.0f s",
            self._url,
            problem,
            self._patience.total_seconds(),
        )

    def _find_problem(self, writes: bool) -> str | None:
        try:
            if writes:
                obstore.put(self._probe, _KEY, b"")
                obstore.delete(self._probe, _KEY)
            else:
                obstore.get(self._probe, _KEY)
        except (BaseError, OSError) as error:
            return None if is_absence(error) else why_away(error)
        return None
