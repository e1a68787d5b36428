"""Run the service."""

import sys

from surogate_bench.service import run_main

sys.exit(run_main("surogate_bench_model_server.main"))
