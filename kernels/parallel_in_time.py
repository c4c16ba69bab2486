"""Whether long sequences of few samples may be cut into chunks of time that run at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_allowed = False


@contextmanager
def parallel_in_time() -> Iterator[None]:
    """Allow synaptic currents on a GPU to run as chunks of time in parallel.

    A small batch leaves a GPU idle; the chunks fill it, for twice the arithmetic. The state at the
    start of a chunk is rounded in another way than step by step, and the number of chunks depends
    on batch and GPU. So outputs differ by rounding between batches, and between one call and two.
    Nothing changes on a CPU, or while `torch.are_deterministic_algorithms_enabled()`. It holds for
    the whole process, forward and backward, because a backward pass runs in threads of its own.

    Example:
        >>> with parallel_in_time():
        ...     spikes, state = HetSynLIF(8, 4)(torch.rand(20, 2, 8))
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
