"""Whether kernels may run that have not passed their tests on a GPU yet."""

from collections.abc import Iterator
from contextlib import contextmanager

_allowed = False


@contextmanager
def trial_kernels() -> Iterator[None]:
    """Use GPU kernels that have passed their tests under Triton's interpreter only.

    Without it, their operators run in closed form. `backend_info("cuda")` names them. It holds for
    the whole process, because a backward pass runs in threads of its own: call `backward()` inside.

    Example:
        >>> with trial_kernels():
        ...     spikes, state = HomNeuLIF(8, 4)(torch.rand(20, 2, 8))
        ...     spikes.sum().backward()
    """
    global _allowed
    before, _allowed = _allowed, True
    try:
        yield
    finally:
        _allowed = before


def allowed() -> bool:
    """Return whether the caller is inside `trial_kernels()`."""
    return _allowed
