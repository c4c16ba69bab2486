"""A feedforward layer: synaptic current, threshold and feedback currents."""

import torch
from torch import Tensor

from ..steps import SpikeFunction, heaviside
from .spikes import spike_scan
from .synaptic import synaptic_current


@torch.no_grad()
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
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loop.feedforward_scan`: -> spikes, V, final feedback, final trace [R, B, J, I].

    Its gradients are those of its two parts: `spike_scan_backward` gives g = dL/dc, and
    `synaptic_current_backward` and `synaptic_parameter_gradient` take it from there.
    """
    current, trace = synaptic_current(z, weight, decay, trace)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    return *spike_scan(current, *neuron, spike_function), trace
