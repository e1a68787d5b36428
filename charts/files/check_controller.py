"""helm test: the controller is ready."""

import sys
import time
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

inside = build_opener(ProxyHandler({}))  # the Service is in the cluster: no proxy of the environment
url, deadline = sys.argv[1], time.monotonic() + 60
while True:
    try:
        with inside.open(url, timeout=5):  # raises unless the status is a success
            break
    except (URLError, OSError) as error:
        if time.monotonic() > deadline:
            sys.exit(f"the controller is not ready: {url}: {error}. See the logs of the orchestrator's pods.")
        time.sleep(1)
