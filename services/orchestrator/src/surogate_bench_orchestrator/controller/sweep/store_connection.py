"""The connection to the object store, opened once its conditional writes are verified: results depend on them."""

import logging
import os
import re
import threading
from collections.abc import Callable
from datetime import timedelta

from surogate_bench.errors import BenchError, ConfigError, TransientError
from surogate_bench.store.object_store import ObjectStore, open_store
from surogate_bench_orchestrator.domain.observed import Failure
from surogate_bench_orchestrator.runtimes.kubernetes.settings import StoreSettings

_log = logging.getLogger(__name__)

RETRY_S = 10.0
_PATIENCE = timedelta(seconds=5)
"""Shorter than in the services: sweeps are reconciled again, and their status should soon show the failure."""
NOT_USABLE = "StoreNotUsable"
_WHEN_AWAY = "Check its endpoint, that the Secret holds credentials, and that the network lets requests through."


_VARIES = re.compile(r"[0-9a-f]{32}|\d+(\.\d+)?(ns|us|µs|ms|s)\b|after \d+ retries|:\d+(?=->)")
"""Names of probe objects, durations, attempts and the client's ports."""


class StoreConnection:
    """Opens the store and verifies its conditional writes; :meth:`check` is called until it succeeds.

    Args:
        settings: Its URL, and the Secret with its credentials; the endpoint comes from the environment.
        explain_release: Returns why the release's own store is not ready; empty if it is, or if the release has none.
    """

    def __init__(self, settings: StoreSettings, explain_release: Callable[[], str] = lambda: "") -> None:
        self._settings = settings
        self._explain_release = explain_release
        self._url = settings.url
        self._lock = threading.Lock()
        self._store: ObjectStore | None = None
        self._failure: Failure | None = None

    @property
    def store(self) -> ObjectStore | None:
        """The store; None until it is verified."""
        with self._lock:
            return self._store

    @property
    def failure(self) -> Failure | None:
        """Why the store is not usable; None if it is, or before the first check."""
        with self._lock:
            return self._failure

    @property
    def is_checked(self) -> bool:
        """Whether a check has ended."""
        with self._lock:
            return self._store is not None or self._failure is not None

    def check(self) -> None:
        """Open and probe the store; :attr:`store` or :attr:`failure` has the outcome."""
        try:
            self._load_credentials()
            store = open_store(self._url, patience=_PATIENCE)
            store.verify_conditional_writes()
        except TransientError as error:
            self._set_failure(self.explain(f"{self._url} cannot be reached: {error}", remedy=_WHEN_AWAY))
        except (BenchError, OSError) as error:
            self._set_failure(self.explain(str(error)))
        else:
            self._set_store(store)

    def explain(self, message: str, *, remedy: str = "") -> str:
        """Return why the release's own store is not ready; if it is, the message of the failed request."""
        if reason := self._explain_release():
            _log.info("the store's pod is not ready: %s", message)
            return f"{reason} Until it is, {self._url} cannot be used."
        return f"{message}. {remedy}" if remedy else message

    def _load_credentials(self) -> None:
        """Set the Secret's current keys as environment variables, which the store reads.

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
                remedy="Create it with the store's credentials as keys; it is read within two minutes.",
            )
        os.environ.update({path.name: path.read_text(encoding="utf-8") for path in keys})

    def _set_store(self, store: ObjectStore) -> None:
        with self._lock:
            self._store, self._failure = store, None
        _log.info("the object store %s can be used", self._url)

    def _set_failure(self, message: str) -> None:
        with self._lock:
            previous = self._failure
            if previous is not None and _constant_part(message) == _constant_part(previous.message):
                return  # the same failure: no new status and Event for every sweep
            self._store, self._failure = None, Failure(NOT_USABLE, message)
        _log.warning("the object store cannot be used: %s", message)


def _constant_part(message: str) -> str:
    """Return a message without the parts that vary, see :data:`_VARIES`."""
    return _VARIES.sub("#", message)
