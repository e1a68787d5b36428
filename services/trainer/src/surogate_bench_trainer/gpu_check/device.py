"""The device of a run, as torch describes it."""

import os
import warnings

import torch

from surogate_bench.contract import GPUS_VARIABLE
from surogate_bench.machine.checks import NO_GPU, Device
from surogate_bench.machine.nvidia_smi import query_nvidia_smi


def describe_device() -> Device:
    """Describe the first GPU, or the CPU with the reason why a CUDA build of torch uses none."""
    cuda = torch.version.cuda
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        return Device(name="cpu", cuda=cuda, driver=_driver(), problem=_problem(caught))
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError as error:
        return Device(name="cpu", cuda=cuda, driver=_driver(), problem=str(error).splitlines()[0])
    properties = torch.cuda.get_device_properties(0)
    return Device(
        name=properties.name,
        compute_capability=(properties.major, properties.minor),
        memory_bytes=properties.total_memory,
        driver=_driver(),
        cuda=cuda,
    )


def _problem(caught: list[warnings.WarningMessage]) -> str | None:
    if torch.version.cuda is None:
        return None
    if caught:  # for example that the driver is too old
        return str(caught[-1].message).splitlines()[0]
    if os.environ.get(GPUS_VARIABLE) in {"", "-1"}:
        return f"{GPUS_VARIABLE} hides every GPU"
    return NO_GPU


def _driver() -> str | None:
    return next(iter(query_nvidia_smi("driver_version")), "").strip() or None
