"""What PyTorch computes between the kernels on a CPU, without its OpenMP threads.

They wait busily for some milliseconds after each operation they shared, on the cores that the
kernels' threads need next: layers took up to twice as long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton.kernels.cpu import threads
from hetsyn_triton.reference.steps import SpikeFunction, previous_steps, spike_derivative
from hetsyn_triton.validation import readable

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
    rows, thresholds = potential.detach().reshape(R, T * B, J), theta.detach()[:, 0]
    found = torch.empty_like(rows)

    def run(begin: int, end: int) -> None:
        with _on_this_thread(), torch.no_grad():
            distance = rows[:, begin:end] - thresholds
            found[:, begin:end] = spike_derivative(surrogate, distance, thresholds)

    threads.run(run, T * B, WORK * rows.numel())
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
    library = _openmp()
    if library is None:
        yield
        return
    count = library.omp_get_max_threads()
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(count)


@cache
def _openmp() -> Any:
    """The OpenMP library that PyTorch computes with; None where it is not found."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / name))
            if library.omp_get_max_threads and library.omp_set_num_threads:
                return library
    return None
