"""Whether long sequences of few samples may be cut into chunks of time that run at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_allowed = False


@contextmanager
def parallel_in_time() -> Iterator[None]:
    """Inside, synaptic currents of few samples and many steps may run as chunks of time side by
    side, on a GPU, forward and backward.

    A GPU that a small batch leaves idle is then filled, for twice the arithmetic. Off by default,
    and off while `torch.are_deterministic_algorithms_enabled()`: the state at a chunk's start is
    rounded in another way than step by step, and how many chunks there are depends on the batch and
    on the GPU. So outputs differ by rounding between batches, and between one call and two. Holds
    for the whole process, because a backward pass runs in threads of its own.
    """
    global _allowed
    before, _allowed = _allowed, True
    try:
        yield
    finally:
        _allowed = before


def allowed() -> bool:
    """Whether it was asked for, and is not forbidden by torch's own switch."""
    return _allowed and not torch.are_deterministic_algorithms_enabled()
