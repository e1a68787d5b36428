"""Polls the progress of running pods, without the API server: every task pod serves ``GET /progress``."""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import urllib3
from pydantic import ValidationError

from surogate_bench.contract import METRICS_PORT, PROGRESS_PATH
from surogate_bench.processes.progress import Progress
from surogate_bench_orchestrator.runtimes.kubernetes.api import Object
from surogate_bench_orchestrator.runtimes.kubernetes.observation.pod_status import age_key, phase_of

_log = logging.getLogger(__name__)
_EVERY_S = 3.0
_TIMEOUT_S = 1.0
_AT_ONCE = 8
_OK = 200
_LONGEST = 65536
"""Bytes of a response that are read."""


class ProgressPoller:
    """Holds the last progress of every running pod.

    Args:
        pods: Returns the cached pods.
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
        """Start to poll, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._http.clear()

    def latest(self, pods: Iterable[Object]) -> Progress | None:
        """Return the last progress of the newest of these pods; None if there is none."""
        newest = max(pods, key=age_key, default=None)
        return None if newest is None else self._latest.get(newest["metadata"]["uid"])

    def _run(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="progress") as workers:
            while not self._stopping.wait(_EVERY_S):
                known = {pod["metadata"]["uid"]: pod for pod in self._pods()}
                for uid in self._latest.keys() - known.keys():
                    self._latest.pop(uid, None)
                running = [pod for pod in known.values() if phase_of(pod) == "Running" and pod["status"].get("podIP")]
                for pod, progress in zip(running, workers.map(self._get, running), strict=True):
                    if progress is not None:
                        self._latest[pod["metadata"]["uid"]] = progress

    def _get(self, pod: Object) -> Progress | None:
        address = str(pod["status"]["podIP"])
        host = f"[{address}]" if ":" in address else address
        try:
            answer = self._http.request("GET", f"http://{host}:{METRICS_PORT}{PROGRESS_PATH}", preload_content=False)
            try:
                return Progress.model_validate_json(answer.read(_LONGEST)) if answer.status == _OK else None
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, ValidationError) as error:
            _log.debug("%s does not serve its progress: %s", pod["metadata"]["name"], error)
            return None
