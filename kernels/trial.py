"""Whether kernels, and variants of kernels, may run that have not passed their tests on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

_RELAXED = "with more than 128 neurons, programs exchange spikes by relaxed stores"
_FUSED = "the same launch computes the surrogate and the gradients of the feedback currents"
VARIANTS = {
    "spike_scan_backward": _FUSED,
    "recurrent_scan": _RELAXED,
    "recurrent_scan_backward": f"{_RELAXED}; {_FUSED}",
}
"""What else differs inside `trial_kernels()`, by operator."""

_allowed = False


@contextmanager
def trial_kernels() -> Iterator[None]:
    """Use GPU kernels, and variants of them, that have not passed their tests on a GPU yet.

    Without it, operators of such kernels run in closed form. `backend_info("cuda")` names kernels
    and variants. Launches also take a shorter way through Python. It holds for the whole process,
    because a backward pass runs in threads of its own: call `backward()` inside.

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
