"""Run the service."""

import sys

from surogate_bench.contract import Service
from surogate_bench.processes.service import run_main

sys.exit(run_main(f"{Service.MODEL_SERVER.module}.main"))
