"""``surogate-bench validate --deep``: what it needs, how it is shown, and that nothing is left behind."""

import io
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, write_sweep
from finished_stages import finish
from rich.console import Console
from sweeps import small_sweep

from surogate_bench.inspection import TextPart
from surogate_bench_orchestrator.cli.inspection.framed import Marks, marked, print_framed
