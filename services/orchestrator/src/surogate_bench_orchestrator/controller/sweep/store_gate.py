"""The way to the object store: open once it is proven that results can be trusted to it."""

import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import timedelta

from surogate_bench.errors import BenchError, ConfigError, TransientError
from surogate_bench.store import ObjectStore, open_store
from surogate_bench_orchestrator.adapters.kubernetes.settings import StoreSettings
from surogate_bench_orchestrator.controller.sweep.standing import Trouble

_log = logging.getLogger(__name__)

RETRY_S = 10.0
_PATIENCE = timedelta(seconds=5)
"""Shorter than in the services: sweeps are looked at again anyway, and their status shall tell soon."""
NOT_USABLE = "StoreNotUsable"
_WHEN_AWAY = "Check its endpoint, that the Secret holds credentials, and that the network lets requests through."


_VARIES = re.compile(r"[0-9a-f]{32}|\d+(\.\d+)?(ns|us|µs|ms|s)\b|after \d+ retries|:\d+(?=->)")
"""Names of probes, seconds, attempts and the requester's ports."""


class StoreGate:
    """Opens the store and proves its conditional writes, again and again until that works.

    Args:
        settings: Its URL, and the Secret with its credentials; the endpoint comes from the environment.
        explain: Says why the store of the release is not ready; empty if it is, or is none of the release's.
    """

    def __init__(self, settings: StoreSettings, explain: Callable[[], str] = lambda: "") -> None:
        self._settings = settings
        self._explain = explain
        self._url = settings.url
        self._lock = threading.Lock()
        self._store: ObjectStore | None = None
        self._trouble: Trouble | None = None

    @property
    def store(self) -> ObjectStore | None:
        """The store; None until it is proven."""
        with self._lock:
            return self._store

    @property
    def trouble(self) -> Trouble | None:
        """Why it is not usable; None if it is, or while that is not known yet."""
        with self._lock:
            return self._trouble

    @property
    def is_settled(self) -> bool:
        """Whether it is known if the store can be used."""
        with self._lock:
            return self._store is not None or self._trouble is not None

    def check(self) -> bool:
        """Try once; say whether the store can be used."""
        try:
            self._take_credentials()
            store = open_store(self._url, patience=_PATIENCE)
            store.verify_conditional_writes()
        except TransientError as error:
            self._settle(None, self.explained(f"{self._url} cannot be reached: {error}", remedy=_WHEN_AWAY))
            return False
        except (BenchError, OSError) as error:
            self._settle(None, self.explained(str(error)))
            return False
        self._settle(store, "")
        return True

    def explained(self, message: str, *, remedy: str = "") -> str:
        """Say why the store's own pod is not ready, where it is not, instead of what became of a request; else that."""
        if why := self._explain():
            _log.info("the store's pod is not ready: %s", message)
            return f"{why} Until it is, {self._url} cannot be used."
        return f"{message}. {remedy}" if remedy else message

    def _take_credentials(self) -> None:
        """Put the Secret's keys, as they are now, into the environment, where the store looks for them.

        Raises:
            ConfigError: there is no such Secret.
        """
        folder, secret = self._settings.credentials, self._settings.secret
        if folder is None or secret is None:
            return
        keys = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        if not keys:
            raise ConfigError(
                "does not exist, or is empty",
                field="Secret",
                value=secret,
                remedy="Create it with the store's credentials as keys; it is noticed within two minutes.",
            )
        os.environ.update({path.name: path.read_text(encoding="utf-8") for path in keys})

    def _settle(self, store: ObjectStore | None, message: str) -> None:
        trouble = None if store else Trouble(NOT_USABLE, message)
        with self._lock:
            if trouble and self._trouble and _words(trouble.message) == _words(self._trouble.message):
                trouble = self._trouble  # the same again: no new status and Event for every sweep
            changed = trouble != self._trouble
            self._store, self._trouble = store, trouble
        if changed and trouble:
            _log.warning("the object store cannot be used: %s", message)
        elif store:
            _log.info("the object store %s can be used", self._url)


def _words(message: str) -> str:
    """A message without what differs each time, see :data:`_VARIES`."""
    return _VARIES.sub("#", message)
