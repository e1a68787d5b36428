"""Stands for Prometheus' kubernetes_sd_configs (role: pod), which Debian builds without.

Writes the ports of a namespace's pods, with the same labels, where file_sd_configs reads them.

usage: discover.py NAMESPACE FILE
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

META = "__meta_kubernetes_pod_"


def targets(pod: Any) -> Iterator[dict[str, Any]]:
    """Make a target of each port of a pod."""
    about = {
        "name": pod.metadata.name,
        "ip": pod.status.pod_ip,
        "phase": pod.status.phase,
        **{f"label_{_plain(name)}": value for name, value in (pod.metadata.labels or {}).items()},
        **{f"annotation_{_plain(name)}": value for name, value in (pod.metadata.annotations or {}).items()},
    }
    for container in pod.spec.containers:
        for port in container.ports or ():
            labels = {**about, "container_port_name": port.name or ""}
            address = f"{pod.status.pod_ip}:{port.container_port}"
            yield {"targets": [address], "labels": {f"{META}{name}": value for name, value in labels.items()}}


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def main(namespace: str, file: Path) -> None:
    """Rewrite the targets every second."""
    config.load_incluster_config()
    api = client.CoreV1Api()
    unfinished = file.with_suffix(".new")
    while True:
        try:
            pods = api.list_namespaced_pod(namespace, _request_timeout=5).items
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            sys.stderr.write(f"{error}\n")
        else:
            found = [target for pod in pods if pod.status.pod_ip for target in targets(pod)]
            unfinished.write_text(json.dumps(found), encoding="utf-8")
            unfinished.replace(file)
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
