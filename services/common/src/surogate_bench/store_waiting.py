"""Say that a request to a remote store takes long because the store is away, and why; silence looks like a hang.

The library repeats a request by itself and says nothing until it gives up. So after a few seconds a request of our own,
which is not repeated, asks what is wrong. A store that answers it is only slow (a big upload), and nothing is said.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import BaseError

from surogate_bench.store_errors import is_absence, why_away

_log = logging.getLogger(__name__)

NOTICE_AFTER = timedelta(seconds=5)
_KEY = ".probes/waiting"


class WaitingNotice:
    """Watches requests to one store.

    Args:
        url: The store's.
        probe: The library's store, with no retries and a short timeout.
        patience: How long the library repeats a request; part of the message.
        after: How long a request may take until the store is asked.
    """

    def __init__(self, url: str, probe: Any, *, patience: timedelta, after: timedelta) -> None:  # noqa: ANN401 - a class per provider
        self._url = url
        self._probe = probe
        self._patience = patience
        self._after = after

    @contextmanager
    def watch(self, *, writes: bool) -> Iterator[None]:
        """Watch one request; log a warning if it waits, and another when it was answered after all.

        Args:
            writes: Whether it writes: a store that is full answers only requests to read.
        """
        ended, told = threading.Event(), threading.Event()
        timer = threading.Timer(self._after.total_seconds(), self._look, (writes, ended, told))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            ended.set()
        if told.is_set():
            _log.warning("the store %s answers again", self._url)

    def _look(self, writes: bool, ended: threading.Event, told: threading.Event) -> None:
        trouble = self._trouble(writes)
        if trouble is None or ended.is_set():
            return
        told.set()
        _log.warning(
            "waiting for the store %s: %s; a request is given up after %.0f s",
            self._url,
            trouble,
            self._patience.total_seconds(),
        )

    def _trouble(self, writes: bool) -> str | None:
        try:
            if writes:
                obstore.put(self._probe, _KEY, b"")
                obstore.delete(self._probe, _KEY)
            else:
                obstore.get(self._probe, _KEY)
        except (BaseError, OSError) as error:
            return None if is_absence(error) else why_away(error)
        return None
