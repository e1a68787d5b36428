"""``python -m surogate_bench_trainer REQUEST.json --work-dir DIR``."""

import sys

from surogate_bench.contract import Service
from surogate_bench.processes.service import run_main

if __name__ == "__main__":
    sys.exit(run_main(f"{Service.TRAINER.module}.main"))
