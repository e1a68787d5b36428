"""Pods that only listen and connect, to find out which pods reach each other."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from real_cluster.release import IMAGE_TAG
from real_cluster.tools import kubectl, until

from surogate_bench_orchestrator.runtimes.kubernetes.api import Api


@dataclass(frozen=True, slots=True)
class StandIn:
    """A pod of the orchestrator's image that only listens and connects."""

    namespace: str
    name: str
    ip: str

    def connects(self, *targets: tuple[str, int]) -> list[bool]:
        """Try to connect to hosts' ports; says which it could."""
        words = [json.dumps(targets)]
        said = kubectl("-n", self.namespace, "exec", self.name, "--", *_PYTHON, _CONNECT, *words)
        return list(json.loads(said))


_PYTHON = ("/opt/venv/bin/python", "-P", "-c")
_LISTEN = """
import asyncio, sys
async def main(ports):
    servers = [await asyncio.start_server(lambda _, writer: writer.close(), port=port) for port in ports]
    await asyncio.sleep(3600)
asyncio.run(main([int(port) for port in sys.argv[1:]]))
"""
_CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def connects(target):
    try:
        socket.create_connection(target, timeout=2).close()
    except OSError:
        return False
    return True
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(connects, targets))))
"""


@contextmanager
def standing_in(
    api: Api, namespace: str, name: str, labels: dict[str, str], *ports: int, gpus: int = 0
) -> Iterator[StandIn]:
    """Run a pod with these labels that listens on these ports, and holds GPUs as somebody else's would."""
    pod: dict[str, Any] = yaml.safe_load("""
        spec:
          automountServiceAccountToken: false
          enableServiceLinks: false
          terminationGracePeriodSeconds: 0
          securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
          containers:
            - name: main
              resources: {requests: {cpu: 5m, memory: 16Mi}, limits: {memory: 128Mi}}
              securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    """)
    image = f"surogate-bench/orchestrator:{IMAGE_TAG}"
    pod["spec"]["containers"][0] |= {"image": image, "command": [*_PYTHON, _LISTEN, *map(str, ports)]}
    if gpus:
        pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = gpus
    path = f"/api/v1/namespaces/{namespace}/pods"
    api.create(path, {"metadata": {"name": name, "labels": labels}, **pod})
    try:
        until(lambda: (api.get(f"{path}/{name}") or {})["status"]["phase"] == "Running", f"pod {name} runs")
        yield StandIn(namespace, name, (api.get(f"{path}/{name}") or {})["status"]["podIP"])
    finally:
        api.delete(f"{path}/{name}")
