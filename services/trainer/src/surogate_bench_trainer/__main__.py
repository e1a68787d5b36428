"""``python -m surogate_bench_trainer REQUEST.json --work-dir DIR``."""

import sys

from surogate_bench_trainer.main import main

if __name__ == "__main__":
    sys.exit(main())
