"""The operators without checks, called with the tensors of a neuron one by one, and the raw ones.

`hetsyn_triton.ops` gathers the five tensors in a `Neuron`. The tests name each of them, so that a
problem is a dictionary of tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hetsyn_triton import ops
from hetsyn_triton.ops.neuron import Neuron
from hetsyn_triton.surrogates import Surrogate

MODULES = (
    ops.synaptic_current,
    ops.leaky_current,
    ops.spike_scan,
    ops.feedforward_scan,
    ops.recurrent_scan,
    ops.leaky_recurrent_scan,
    ops.surrogate,
)


def is_raw(found: object) -> bool:
    """Whether an attribute of a module is an operator of PyTorch's dispatcher."""
    return isinstance(found, torch._ops.OpOverload)


RAW: dict[str, Callable[..., Any]] = {
    found._schema.name.removeprefix("hetsyn_triton::"): found
    for module in MODULES
    for found in vars(module).values()
    if is_raw(found)
}
"""`raw`, `raw_backward` and `raw_parameter_gradient` of every module, by the operator's name."""


def synaptic_current(
    z: Tensor, weight: Tensor, decay: Tensor, trace: Tensor | None, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """z [R, T, B, I], weight and decay [R, J, I] -> current [R, T, B, J], final trace."""
    return ops.synaptic_current.run(z, weight, decay, trace, backend)


def leaky_current(drive: Tensor, decay: Tensor, current: Tensor, backend: str = "auto") -> Tensor:
    """drive [R, T, B, J], decay [R, J], current [R, B, J] -> current of every step."""
    return ops.leaky_current.run(drive, decay, current, backend)


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
    """current [R, T, B, J] and the neuron -> spikes, V, final feedback."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    return ops.spike_scan.run(current, own, surrogate, detach_reset, backend)


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
    """z [R, T, B, I], synapses and neuron -> spikes, V, final feedback, final trace."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    given = (z, weight, decay, trace, own)
    return ops.feedforward_scan.run(*given, surrogate, detach_reset, backend)


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
    """current [R, T, B, J], synapses [R, J, J], neuron -> spikes, V, final feedback and trace."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    given = (current, weight, decay, trace, own)
    return ops.recurrent_scan.run(*given, surrogate, detach_reset, backend)


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
    """drive [R, T, B, J], weight [R, J, J], decay [R, J] and neuron -> spikes, V, final feedback,
    current of every step."""
    own = Neuron(threshold, feedback_decay, feedback_strength, feedback, spike)
    given = (drive, weight, decay, current, own)
    return ops.leaky_recurrent_scan.run(*given, surrogate, detach_reset, backend)
