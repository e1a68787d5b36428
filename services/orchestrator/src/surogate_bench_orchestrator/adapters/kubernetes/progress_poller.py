"""Asks running pods how far they are. No API call is involved: every task pod answers ``GET /progress``."""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import urllib3
from pydantic import ValidationError

from surogate_bench.contract import METRICS_PORT, PROGRESS_PATH
from surogate_bench.progress import Progress
from surogate_bench_orchestrator.adapters.kubernetes.api import Object
from surogate_bench_orchestrator.adapters.kubernetes.pod_status import age_key, phase_of

_log = logging.getLogger(__name__)
_EVERY_S = 3.0
_TIMEOUT_S = 1.0
_AT_ONCE = 8
_OK = 200
_LONGEST = 65536
"""Bytes of an answer that are read."""


class ProgressPoller:
    """Keeps the last word of every running pod.

    Args:
        pods: The pods to ask, as last seen.
    """

    def __init__(self, pods: Callable[[], list[Object]]) -> None:
        self._pods = pods
        self._latest: dict[str, Progress] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._http = urllib3.PoolManager(
            num_pools=4 * _AT_ONCE, retries=False, timeout=urllib3.Timeout(connect=_TIMEOUT_S, read=_TIMEOUT_S)
        )

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._http.clear()

    def latest(self, pods: Iterable[Object]) -> Progress | None:
        """What the newest of these pods said last; None if it has not said anything."""
        newest = max(pods, key=age_key, default=None)
        return None if newest is None else self._latest.get(newest["metadata"]["uid"])

    def _run(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="progress") as workers:
            while not self._stopping.wait(_EVERY_S):
                known = {pod["metadata"]["uid"]: pod for pod in self._pods()}
                for uid in self._latest.keys() - known.keys():
                    self._latest.pop(uid, None)
                running = [pod for pod in known.values() if phase_of(pod) == "Running" and pod["status"].get("podIP")]
                for pod, said in zip(running, workers.map(self._ask, running), strict=True):
                    if said is not None:
                        self._latest[pod["metadata"]["uid"]] = said

    def _ask(self, pod: Object) -> Progress | None:
        address = str(pod["status"]["podIP"])
        host = f"[{address}]" if ":" in address else address
        try:
            answer = self._http.request("GET", f"http://{host}:{METRICS_PORT}{PROGRESS_PATH}", preload_content=False)
            try:
                return Progress.model_validate_json(answer.read(_LONGEST)) if answer.status == _OK else None
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, ValidationError) as error:
            _log.debug("%s does not say how far it is: %s", pod["metadata"]["name"], error)
            return None
