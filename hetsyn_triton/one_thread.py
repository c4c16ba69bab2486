"""PyTorch's operations of one thread run on that thread alone for a while.

Its OpenMP threads wait busily for some milliseconds after each operation they shared, on the cores
that the kernels' threads need next (layers took up to twice as long), and they do not exist in a
forked child, which waits for them for ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

SHARED = 1 << 15
"""Elements from which PyTorch shares out an operation; exponentials already smaller ones."""


@contextmanager
def on_this_thread() -> Iterator[None]:
    """Elementwise operations in the block run on this thread alone; matrix products may not.

    `torch.set_num_threads` would change other threads' number too.
    """
    torch.get_num_threads()  # the first question of a thread sets its number
    setters = [(set_count, set_count(1)) for set_count in _setters()]
    try:
        yield
    finally:
        for set_count, before in setters:
            set_count(before)


@cache
def _setters() -> tuple[Callable[[int], int], ...]:
    """Functions that set this thread's number of threads and return what it was: of OpenMP, and of
    MKL, which computes exponentials, where PyTorch has it."""
    library = _library()
    if library is None:
        return ()

    def set_count(new: int) -> int:
        before = int(library.omp_get_max_threads())
        library.omp_set_num_threads(new)
        return before

    of_mkl = getattr(library, "MKL_Set_Num_Threads_Local", None)
    return (set_count,) if of_mkl is None else (set_count, of_mkl)


def _library() -> Any:
    """PyTorch's, through which OpenMP's functions are found; None where it is built without."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / name))
            if library.omp_get_max_threads and library.omp_set_num_threads:
                return library
    return None
