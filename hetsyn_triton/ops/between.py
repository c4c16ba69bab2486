"""What PyTorch computes between the kernels on a CPU, without its OpenMP threads.

They wait busily for some milliseconds after each operation they shared, on the cores that the
kernels' threads need next: layers took up to twice as long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu import threads
from hetsyn_triton.reference.steps import SpikeFunction, previous_steps, spike_derivative
from hetsyn_triton.validation import readable

ROWS = 64
"""Rows that one thread does together: whole vectors, for PyTorch rounds the last few elements of a
call, which fill none, in another way. So the number of threads changes no bit."""
PIECE = 1 << 16
"""Elements that go through all operations of a surrogate before the next ones do: they stay in
cache. (Of 3 million, `MultiGaussian` took twice as long all at once.)"""
WORK = 20
"""What an element of a surrogate costs, in multiply-adds of a kernel."""


def derivative(surrogate: SpikeFunction, potential: Tensor, threshold: Tensor) -> Tensor:
    """ds/dV [R, T, B, J] of V, threshold [R, J]: by an ordinary PyTorch function, handed to the
    operators as data. A surrogate that says it is `elementwise` is shared out over the kernels'
    threads."""
    theta = threshold[:, None, None]
    if not readable(potential):
        return spike_derivative(surrogate, potential - theta, theta)
    if not getattr(surrogate, "elementwise", False):
        with _on_this_thread():
            return spike_derivative(surrogate, potential - theta, theta)
    R, T, B, J = potential.shape
    steps, thresholds = potential.detach().reshape(R, T * B, J), threshold.detach()
    found = torch.empty_like(steps)
    length = ROWS * max(1, PIECE // (ROWS * max(J, 1)))

    def run(begin: int, end: int) -> None:
        with _on_this_thread(), torch.no_grad():
            for given, made, own in zip(steps, found, thresholds, strict=True):
                for first in range(ROWS * begin, ROWS * end, length):
                    rows = slice(first, min(first + length, ROWS * end))
                    made[rows] = spike_derivative(surrogate, given[rows] - own, own)

    threads.run(run, -(-T * B // ROWS), WORK * steps.numel())
    return found.view(R, T, B, J)


def previous(steps: Tensor, initial: Tensor) -> Tensor:
    """`previous_steps`, copied by this thread."""
    if not readable(steps):
        return previous_steps(steps, initial)
    with _on_this_thread():
        return previous_steps(steps, initial)


@contextmanager
def _on_this_thread() -> Iterator[None]:
    """PyTorch's elementwise operations of this thread run on it alone for a while.

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
