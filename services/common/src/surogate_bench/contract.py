"""The contract between services: names, environment variables, ports, paths, files, reasons and messages of failure.

Process exit codes belong to the errors that cause them: :class:`surogate_bench.errors.ExitCode`. Requests are in
:mod:`surogate_bench.stages.requests`, keys of the object store in :mod:`surogate_bench.layout`. The Helm chart
repeats the ports.
"""

import signal
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from surogate_bench.errors import ExitCode, UnsupportedRecipeError


class Service(StrEnum):
    """The services that the orchestrator starts, each as ``python -m MODULE REQUEST.json --work-dir DIR``."""

    TRAINER = "trainer"
    MODEL_SERVER = "model-server"
    EVALUATOR = "evaluator"

    @property
    def module(self) -> str:
        """Name of the service's package."""
        return f"surogate_bench_{self.value.replace('-', '_')}"


GPU_CHECK_MODULE = f"{Service.TRAINER.module}.gpu_check"
"""Module of the trainer that checks this machine, started as ``python -m MODULE --output DIR``."""

OUTPUT_OPTION, GROUPS_OPTION = "--output", "--groups"
THREADS_OPTION, MINUTES_OPTION = "--threads", "--minutes"
"""Its options that others give: folder of its report, groups of checks, CPU threads, and time."""

WORK_DIR_OPTION = "--work-dir"
"""Option of every service: folder for scratch files, progress and errors."""

# Environment variables

VARIABLE_PREFIX = "SUROGATE_BENCH_"
"""Prefix of every environment variable of surogate-bench."""

PARENT_PID_VARIABLE = f"{VARIABLE_PREFIX}PARENT_PID"
"""PID of the parent process; the service ends when that process ends."""

TERMINATION_LOG_VARIABLE = f"{VARIABLE_PREFIX}TERMINATION_LOG"
"""Path of an additional file for the :class:`surogate_bench.processes.progress.Termination`: a container's termination
message."""

METRICS_PORT_VARIABLE = f"{VARIABLE_PREFIX}METRICS_PORT"
"""Port for metrics and progress; if unset, they are not served."""

VLLM_API_KEY_VARIABLE = f"{VARIABLE_PREFIX}VLLM_API_KEY"
"""Key that vLLM requires and the evaluator sends; if unset, vLLM requires none."""

CONFIGS_VARIABLE = f"{VARIABLE_PREFIX}CONFIGS"
"""Folder of the shipped configuration, if it is not in a checkout; container images set it."""

TASK_DIR_VARIABLE = f"{VARIABLE_PREFIX}TASK_DIR"
"""Marks every process of a task, so that it can be found after its parent processes have ended."""

CPU_LORA_MARK_VARIABLE = f"{VARIABLE_PREFIX}CPU_LORA_MARK"
"""Path of a file that the vLLM plug-in creates when vLLM has built a model with its implementation."""

SERVED_RECIPE_VARIABLE = f"{VARIABLE_PREFIX}SERVED_RECIPE"
"""Path of the file with the recipe that vLLM serves the base model under; set by the model server for its plug-in."""

PEER_TIMEOUT_VARIABLE = f"{VARIABLE_PREFIX}PEER_TIMEOUT_S"
"""Seconds that a process of a training run on several GPUs waits for the others; 900 if unset."""

TRAINER_REQUEST_VARIABLE = f"{VARIABLE_PREFIX}TRAINER_REQUEST"
"""Path of the request that a foreign trainer is given."""

# Variables of other software that several services read or set

STORE_VARIABLES: Mapping[str, str] = MappingProxyType({"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"})
"""Prefixes of the variables with credentials and endpoint of an object store, by the scheme of its URL."""

THREADS_VARIABLE = "OMP_NUM_THREADS"
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
HUB_OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
TRANSFORMERS_OFFLINE_VARIABLE = "TRANSFORMERS_OFFLINE"
DATASETS_OFFLINE_VARIABLE = "HF_DATASETS_OFFLINE"
HUB_HOME_VARIABLE = "HF_HOME"
HUB_ENDPOINT_VARIABLE = "HF_ENDPOINT"
HUB_TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the name of the variable

# Addresses and ports

LOOPBACK = "127.0.0.1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - of pods only; the chart's NetworkPolicies decide who reaches them

SERVER_PORT = 8100
"""Port of the control API in a plan; a runtime whose servers share a network namespace chooses others."""

VLLM_PORT = 8000
"""Port of vLLM in a plan; as :data:`SERVER_PORT`."""

METRICS_PORT = 9400
"""Port for metrics and progress of every task pod."""

CONTROLLER_PORT = 8080
"""Port for health, metrics and reports of the controller."""

# HTTP paths

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"
PROGRESS_PATH = "/progress"
STATUS_PATH = "/status"
ADAPTERS_PATH = "/adapters"
PROBE_PATH = "/probe"
VLLM_COMPLETIONS_PATH = "/v1/completions"

# Files of a stage in the object store

SPEC_FILE = "spec.json"
MANIFEST_FILE = "manifest.json"
DATA_FOLDER = "data"
"""Prepared splits, one file each; see :func:`split_file`."""
MODEL_FOLDER = "model"
"""The prepared model, where it had to be converted."""
ADAPTER_FOLDER = "adapter"
ADAPTER_CONFIG_FILE = "adapter_config.json"  # PEFT's names
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_PREFIX = "base_model.model."
"""What PEFT puts before the names of the base model's modules in the names of an adapter's tensors."""
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
"""Ends of the names of an adapter's tensors: A (rank, inputs) and B (outputs, rank) of a layer."""
INPUT_SCALES_FILE = "input_scales.safetensors"
"""Scales of FP8's delayed scaling at the end of training: an fp32 scalar by module path of each projection."""
METRICS_FILE = "metrics.jsonl"
"""Lines of :class:`surogate_bench.results.MetricsLine`."""
SAMPLES_FILE = "samples.jsonl"
"""Lines of :class:`surogate_bench.results.SampleLine`."""
RESULTS_FILE = "results.json"
"""Results in lm-eval's own form."""
SUMMARY_FILE = "summary.json"
"""The report as JSON; written last."""

# Files of a model in the format of transformers

MODEL_CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
"""Files by tensor, where there are several."""

# Files of an exported base

EXPORT_FILE = "surogate_bench_export.json"
"""A :class:`surogate_bench.stages.exports.ExportRecord`, next to the weights."""

# Files of a running task

REQUEST_FILE = "request.json"
PROGRESS_FILE = "progress.json"
TERMINATION_FILE = "termination.json"
LOG_FILE = "log.txt"

# Reasons of failure

KILLED, EXITED = "Killed", "Exited"
"""Reasons of a process that reported none: a signal ended it, or it ended with an exit code."""

NO_CAPABLE_NODE = "NoCapableNode"
"""No node of the cluster has what a pod asks for."""

LACK_OF_CAPABILITY = frozenset({UnsupportedRecipeError.__name__, NO_CAPABLE_NODE})
"""Reasons for which a run is skipped rather than failed: the hardware cannot run it."""


# Messages of several services


def killed_by(number: int) -> str:
    """Return how a process ended that a signal ended, and the usual cause of SIGKILL."""
    hint = " (the kernel does so when memory is exhausted)" if number == signal.SIGKILL else ""
    return f"killed by {signal.Signals(number).name}{hint}"


COMMAND_ASKS_AGAIN = f"the command asks for another attempt (exit code {ExitCode.TRANSIENT:d})"
"""Of a foreign trainer's command, as in the next four: a trainer runs it, or in a cluster a container of its pod."""


def command_not_started(why: str) -> str:
    """Return the message of a command that cannot be started."""
    return f"the command cannot be started: {why}"


def command_overdue(timeout_s: float) -> str:
    """Return the message of a command that was stopped at its deadline, seconds."""
    return f"the command had not ended after {timeout_s:g} s"


def command_killed(number: int) -> str:
    """Return the message of a command that a signal ended."""
    return f"the command was killed by signal {number}"


def command_exited(code: int) -> str:
    """Return the message of a command that ended with an exit code that means failure."""
    return f"the command ended with exit code {code}"


def authorization(api_key: str | None) -> dict[str, str]:
    """Return the header by which clients of vLLM show its key; empty where it requires none."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def task_file(task: str) -> str:
    """Return the name of the file in :data:`DATA_FOLDER` with the questions of a further task; lines as of a split."""
    return f"task-{task}.jsonl"


def split_file(split: str) -> str:
    """Return the name of a split's file in :data:`DATA_FOLDER`.

    A line is a JSON object with ``question`` and ``answer``, with ``prompt`` and ``completion`` (used as they are), or
    with ``text``, the parts of it that count in the loss (``counted``: start and end in characters), and
    ``special_tokens``: whether those that the tokenizer adds are still to be added.
    """
    return f"{split}.jsonl"
