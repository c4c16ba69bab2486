"""Freed memory is kept for the next tensor, in processes that are ours alone."""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # glibc's malloc.h
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def mallopt(option: int, value: int) -> bool:
    """Sets an option of the C library's allocator; False where there is none such."""
    try:
        return bool(ctypes.CDLL(None).mallopt(option, value))
    except (AttributeError, OSError, TypeError):
        return False


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):
        return False


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed, for the whole process from now on. Returns whether it
    could be told: only glibc, and where the environment (GLIBC_TUNABLES or a variable MALLOC_...)
    has no such setting of its own. An allocator loaded in its place does as it likes.

    PyTorch frees tensors on the CPU to the C library, which hands large ones back to the system;
    each training step then has the same memory mapped, zeroed and faulted in again. A process takes
    a quarter to a half more memory for it. Tensors of more than 64 MB that another thread than the
    first makes are mapped anew all the same. `hetsyn` does this in its own processes.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(name in os.environ for name in _OF_THE_USER) or "mmap" in tunables or "trim" in tunables:
        return False
    return _is_glibc() and mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1)
