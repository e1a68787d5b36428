"""How memory that ran out shows itself."""

import errno

import torch

_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")
"""PyTorch's words on Linux and elsewhere."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out: on a GPU, in PyTorch's allocator on a CPU, in Python, or while a file was mapped."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_ALLOCATOR)
