"""The switch for GPU kernels, and for variants of kernels, that have not been tested on a GPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RELAXED = "with more than 128 neurons, programs exchange spikes by relaxed stores"
_FUSED = "the scan computes the surrogate and the feedback gradients"
_FUSED_RECURRENT = f"up to 1024 neurons, {_FUSED}"
_VARIANTS = {
    "spike_scan_backward": (_FUSED,),
    "recurrent_scan": (_RELAXED,),
    "recurrent_scan_backward": (_RELAXED, _FUSED_RECURRENT),
}

_lock = threading.Lock()
_inside = 0


@contextmanager
def trial_kernels() -> Iterator[None]:
    """Use GPU kernels, and variants of them, that have not passed their tests on a GPU yet.

    Without it, operators of such kernels run in closed form. `backend_info("cuda")` names kernels
    and variants. Launches also take a shorter way through Python. It holds for the whole process
    until all blocks have ended, because a backward pass runs in threads of its own: call
    `backward()` inside.

    Example:
        >>> with trial_kernels():
        ...     spikes, state = HomNeuLIF(8, 4)(torch.rand(20, 2, 8))
        ...     spikes.sum().backward()
    """
    global _inside
    with _lock:
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1


def allowed() -> bool:
    """Return whether any thread is inside `trial_kernels()`."""
    return _inside > 0


def variants(operator: str) -> str:
    """Return what else differs inside `trial_kernels()` for an operator with a Triton kernel."""
    return "; ".join([*_VARIANTS.get(operator, ()), "shorter launches"])
