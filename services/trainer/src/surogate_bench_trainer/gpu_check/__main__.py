"""``python -m surogate_bench_trainer.gpu_check --output DIR``."""

import sys

from surogate_bench_trainer.gpu_check.run import main

if __name__ == "__main__":
    sys.exit(main())
