"""Threshold and feedback currents: the loop, and the closed form with its backward."""

import torch
from torch import Tensor

from .lib.scans import reverse_scan, scan
from .lib.steps import (
    SpikeFunction,
    feedback_step,
    heaviside,
    membrane_potential,
    stack_steps,
)


def loop(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold and feedback currents over given synaptic currents.

    current [R, T, B, J], threshold [R, J], feedback_decay and feedback_strength [R, K, J], feedback
    [R, K, B, J], spike [R, B, J] (the last spike before t = 1) -> spikes and V [R, T, B, J], final
    feedback [R, K, B, J]. `detach_reset` stops the gradient from the feedback currents to the
    spikes that drive them.
    """
    spikes, potentials = [], []
    for current_t in current.unbind(1):
        fed_back = spike.detach() if detach_reset else spike
        feedback = feedback_step(feedback, fed_back, feedback_decay, feedback_strength)
        v = membrane_potential(current_t, feedback)
        spike = spike_function(v - threshold.unsqueeze(1), threshold.unsqueeze(1))
        spikes.append(spike)
        potentials.append(v)
    return stack_steps(spikes, spike), stack_steps(potentials, spike), feedback


@torch.no_grad()
def spike_scan(
    current: Tensor,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction = heaviside,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `loop.spike_scan`: -> spikes, V [R, T, B, J], final feedback [R, K, B, J]."""
    return scan(
        lambda t, _: current[:, t],
        current.shape,
        threshold,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        spike_function,
    )


@torch.no_grad()
def spike_scan_backward(
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """-> d_current, d_threshold, d_feedback_decay, d_feedback_strength, d_feedback, d_spike
    (shapes: `reverse_scan`)."""
    return reverse_scan(
        lambda t, g: None,
        g_spikes,
        g_potential,
        g_feedback,
        derivative,
        spikes,
        feedback_decay,
        feedback_strength,
        feedback,
        spike,
        detach_reset,
    )
