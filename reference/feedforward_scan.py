"""A feedforward layer: synaptic current, threshold and feedback currents."""

import torch
from torch import Tensor

from . import spike_scan as neurons, synaptic_current as synapses
from .lib.steps import SpikeFunction, heaviside


def loop(
    z: Tensor,
    weight: Tensor,
    decay: Tensor,
    trace: Tensor | None,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`synaptic_current`, then `spike_scan` -> spikes, V, final feedback, final trace."""
    current, trace = synapses.loop(z, weight, decay, trace)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    return *neurons.loop(current, *neuron, spike_function, detach_reset), trace


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
    current, trace = synapses.synaptic_current(z, weight, decay, trace)
    neuron = (threshold, feedback_decay, feedback_strength, feedback, spike)
    return *neurons.spike_scan(current, *neuron, spike_function), trace
