"""``python -m surogate_bench_trainer REQUEST.json --work-dir DIR``."""

import sys

from surogate_bench.service import run_main

if __name__ == "__main__":
    sys.exit(run_main("surogate_bench_trainer.main"))
