"""What is computed between the operators' kernels: surrogates, s(t-1). By a kernel where there is
one, else by PyTorch, on a CPU without its own threads (`one_thread.py`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hetsyn_triton.kernels.cpu.lib import threads
from hetsyn_triton.one_thread import on_this_thread
from hetsyn_triton.reference.steps import SpikeFunction, previous_steps, spike_derivative
from hetsyn_triton.validation import readable

from . import in_one_pass

ROWS = 64
"""Rows that one thread does together: whole vectors, for PyTorch rounds the last few elements of a
call, which fill none, in another way. So the number of threads changes no bit."""
PIECE, SHARED_PIECE = 1 << 16, 1 << 18
"""Elements that go through all operations of a surrogate before the next ones do: they stay in
cache. (Of 6 million, `MultiGaussian` took six times as long all at once.) More of them where
threads share the work, which wait for each other between operations: Python's lock."""
WORK = 1
"""What an element counts, in multiply-adds of a kernel, when threads are counted: a second one is
worth its while from half a million on, for the same reason."""
COPY = 20
"""What copying an element takes, in multiply-adds of a kernel."""


def derivative(surrogate: SpikeFunction, potential: Tensor, threshold: Tensor) -> Tensor:
    """ds/dV [R, T, B, J] of V, threshold [R, J], handed to the operators as data: of a built-in
    surrogate by a kernel, else by an ordinary PyTorch function. On a CPU one that says it is
    `elementwise` is shared out over the kernels' threads."""
    theta = threshold[:, None, None]
    found = in_one_pass.derivative(surrogate, potential, threshold)
    if found is not None:
        return found
    if not readable(potential):
        return spike_derivative(surrogate, potential - theta, theta)
    # A dispatch mode, such as make_fx, sees only what its own thread does.
    if not _is_elementwise(surrogate) or _get_current_dispatch_mode() is not None:
        with on_this_thread():
            return spike_derivative(surrogate, potential - theta, theta)
    R, T, B, J = potential.shape
    steps = potential.detach().reshape(R, T * B, J).contiguous()
    thresholds = threshold.detach()
    made = torch.empty_like(steps)
    parts = -(-T * B // ROWS)

    def run(begin: int, end: int) -> None:
        piece = PIECE if end - begin == parts else SHARED_PIECE
        length = ROWS * max(1, piece // (ROWS * max(J, 1)))
        with on_this_thread(), torch.no_grad():
            for given, place, own in zip(steps, made, thresholds, strict=True):
                for first in range(ROWS * begin, ROWS * end, length):
                    rows = slice(first, min(first + length, ROWS * end))
                    place[rows] = spike_derivative(surrogate, given[rows] - own, own)

    threads.share(run, parts, WORK * steps.numel())
    return made.view(R, T, B, J)


def _is_elementwise(surrogate: SpikeFunction) -> bool:
    """Whether it promises so itself: a class that gives another `__call__` than the one it was
    derived from does not inherit the promise."""
    for namespace in (getattr(surrogate, "__dict__", {}), *map(vars, type(surrogate).__mro__)):
        if "elementwise" in namespace:
            return bool(namespace["elementwise"])
        if "__call__" in namespace:
            return False
    return False


def previous(steps: Tensor, initial: Tensor) -> Tensor:
    """`previous_steps`, copied by the kernels' threads, without a gradient."""
    if not (readable(steps) and readable(initial)) or _get_current_dispatch_mode() is not None:
        return previous_steps(steps, initial)
    found = steps.new_empty(steps.shape)

    def run(begin: int, end: int) -> None:
        first = max(begin, 1)
        with on_this_thread(), torch.no_grad():
            found[:, begin:first] = initial[:, None]
            found[:, first:end] = steps[:, first - 1 : end - 1]

    threads.share(run, steps.shape[1], COPY * steps.numel())
    return found
