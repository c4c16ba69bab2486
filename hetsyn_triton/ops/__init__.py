"""The operators, with gradients: by PyTorch's dispatcher, or by the reference loop when asked.

Shapes: R replicas, T steps, B samples, I inputs, J neurons, K feedback currents. Arguments are
trusted here; `hetsyn_triton.functional` checks them.
"""

from typing import cast

from torch import Tensor

from hetsyn_triton.kernels.parallel_in_time import parallel_in_time
from hetsyn_triton.reference import loop
from hetsyn_triton.reference.steps import surrogate_spike
from hetsyn_triton.surrogates import Surrogate

from .autograd import (
    FeedforwardScan,
    LeakyCurrent,
    LeakyRecurrentScan,
    RecurrentScan,
    SpikeScan,
    SynapticCurrent,
)
from .backends import (
    BACKENDS,
    OPERATORS,
    BackendInfo,
    BackendUnavailableError,
    OperatorInfo,
    backend_info,
    resolve,
)
from .library import full_precision

__all__ = [
    "BACKENDS",
    "OPERATORS",
    "BackendInfo",
    "BackendUnavailableError",
    "OperatorInfo",
    "backend_info",
    "feedforward_scan",
    "full_precision",
    "leaky_current",
    "leaky_recurrent_scan",
    "parallel_in_time",
    "recurrent_scan",
    "spike_scan",
    "synaptic_current",
]


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I], trace [R, B, J, I] or None
    -> current [R, T, B, J], final trace."""
    if resolve(backend, z.device, "synaptic_current", z.dtype) == "reference":
        return loop.synaptic_current(z, weight, decay, trace)
    outputs = SynapticCurrent.apply(z, weight, decay, trace)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor], outputs)


def leaky_current(drive: Tensor, decay: Tensor, current: Tensor, backend: str = "auto") -> Tensor:
    """drive [R, T, B, J], decay [R, J], current [R, B, J] -> [R, T, B, J]."""
    if resolve(backend, drive.device, "leaky_current", drive.dtype) == "reference":
        return loop.leaky_current(drive, decay, current)
    output = LeakyCurrent.apply(drive, decay, current)  # type: ignore[no-untyped-call]
    return cast(Tensor, output)


def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """current [R, T, B, J], threshold [R, J], feedback_decay and feedback_strength [R, K, J],
    feedback [R, K, B, J], spike [R, B, J] -> spikes and V [R, T, B, J], final feedback."""
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    if resolve(backend, current.device, "spike_scan", current.dtype) == "reference":
        return loop.spike_scan(current, *neuron, surrogate_spike(surrogate), detach_reset)
    outputs = SpikeScan.apply(  # type: ignore[no-untyped-call]
        current, *neuron, surrogate, detach_reset
    )
    return cast(tuple[Tensor, Tensor, Tensor], outputs)


def feedforward_scan(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`synaptic_current` and `spike_scan` in one: z [R, T, B, I], weight and decay [R, J, I], trace
    [R, B, J, I] or None -> spikes, V, final feedback, final trace."""
    synapses = (weight, decay, trace)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    if resolve(backend, z.device, "feedforward_scan", z.dtype) == "reference":
        return loop.feedforward_scan(
            z, *synapses, *neuron, surrogate_spike(surrogate), detach_reset
        )
    outputs = FeedforwardScan.apply(  # type: ignore[no-untyped-call]
        z, *synapses, *neuron, surrogate, detach_reset
    )
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)


def recurrent_scan(
    current: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `spike_scan`, with weight and decay [R, J, J], trace [R, B, J, J] or None
    -> spikes, V, final feedback, final trace."""
    synapses = (weight, decay, trace)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    if resolve(backend, current.device, "recurrent_scan", current.dtype) == "reference":
        return loop.recurrent_scan(
            current, *synapses, *neuron, surrogate_spike(surrogate), detach_reset
        )
    outputs = RecurrentScan.apply(  # type: ignore[no-untyped-call]
        current, *synapses, *neuron, surrogate, detach_reset
    )
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)


def leaky_recurrent_scan(
    drive: Tensor,
    weight: Tensor,
    decay: Tensor,
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    surrogate: Surrogate,
    detach_reset: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `spike_scan`, with drive [R, T, B, J], weight [R, J, J], decay [R, J], current [R, B, J]
    -> spikes, V, final feedback, current [R, T, B, J]."""
    membrane = (weight, decay, current)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    if resolve(backend, drive.device, "leaky_recurrent_scan", drive.dtype) == "reference":
        return loop.leaky_recurrent_scan(
            drive, *membrane, *neuron, surrogate_spike(surrogate), detach_reset
        )
    outputs = LeakyRecurrentScan.apply(  # type: ignore[no-untyped-call]
        drive, *membrane, *neuron, surrogate, detach_reset
    )
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)
