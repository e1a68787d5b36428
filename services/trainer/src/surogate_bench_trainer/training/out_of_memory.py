"""Detection of out-of-memory errors."""

import errno

import torch

_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")
"""Messages of PyTorch's CPU allocator on Linux and on other systems."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: on a GPU, in PyTorch's CPU allocator, in Python, or while mapping a file."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _CPU_ALLOCATOR)
