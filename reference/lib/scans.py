"""Threshold and feedback currents over time, and the reverse: what the closed forms of all scans
share."""

from collections.abc import Callable

import torch
from torch import Tensor

from .steps import SpikeFunction, previous_steps


def scan(
    current_at: Callable[[int, Tensor], Tensor],
    shape: torch.Size,
    threshold: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    spike_function: SpikeFunction,
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold and feedback over `current_at(t, s(t-1))` -> spikes, V, final feedback."""
    spikes, potentials = spike.new_empty(shape), spike.new_empty(shape)
    threshold = threshold.unsqueeze(1)
    decay, strength = feedback_decay.unsqueeze(2), feedback_strength.unsqueeze(2)
    for t in range(shape[1]):
        feedback = torch.addcmul(strength * spike.unsqueeze(1), decay, feedback)
        v = current_at(t, spike) - feedback.sum(1)
        spike = spike_function(v - threshold, threshold)
        spikes[:, t] = spike
        potentials[:, t] = v
    return spikes, potentials, feedback.clone()


def _feedback_parameter_gradient(
    g: Tensor,
    g_feedback: Tensor | None,
    spikes_before: Tensor,
    decay: Tensor,
    strength: Tensor,
    feedback: Tensor,
) -> tuple[Tensor, Tensor]:
    """g = dL/dV [R, T, B, J], s(t-1) [R, T, B, J], initial feedback [R, K, B, J] -> d_decay,
    d_strength [R, K, J]."""
    decay, strength = decay.unsqueeze(2), strength.unsqueeze(2)
    to_strength, to_decay = torch.zeros_like(feedback), torch.zeros_like(feedback)
    d_strength, d_decay = torch.zeros_like(feedback), torch.zeros_like(feedback)
    for t in range(g.shape[1]):
        s = spikes_before[:, t].unsqueeze(1)
        to_decay = torch.addcmul(feedback, decay, to_decay)
        to_strength = torch.addcmul(s, decay, to_strength)
        feedback = torch.addcmul(strength * s, decay, feedback)
        g_t = g[:, t].unsqueeze(1)
        d_strength.addcmul_(g_t, to_strength, value=-1)
        d_decay.addcmul_(g_t, to_decay, value=-1)
    if g_feedback is not None:
        d_strength += g_feedback * to_strength
        d_decay += g_feedback * to_decay
    return d_decay.sum(2), d_strength.sum(2)


def reverse_scan(
    through_current: Callable[[int, Tensor], Tensor | None],
    g_spikes: Tensor | None,
    g_potential: Tensor | None,
    g_feedback: Tensor | None,
    derivative: Tensor,
    spikes: Tensor,
    feedback_decay: Tensor,
    feedback_strength: Tensor,
    feedback: Tensor,
    spike: Tensor,
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Reverse of `scan`.

    `derivative` is ds/dV [R, T, B, J]. `through_current(t, dL/dV(t))` returns what the current
    sends back to s(t-1), or None. Returns dL/dV [R, T, B, J], d_threshold [R, J] (by way of the
    spike alone: the strength of the reset has its own gradient), d_feedback_decay and
    d_feedback_strength [R, K, J], d_feedback [R, K, B, J], d_spike [R, B, J].
    """
    g_v = torch.empty_like(derivative, memory_format=torch.contiguous_format)
    d_threshold = torch.zeros_like(spike)
    d_feedback = torch.zeros_like(feedback) if g_feedback is None else g_feedback.clone()
    d_spike = torch.zeros_like(spike)
    decay, strength = feedback_decay.unsqueeze(2), feedback_strength.unsqueeze(2)
    for t in reversed(range(spikes.shape[1])):
        if g_spikes is not None:
            d_spike = d_spike + g_spikes[:, t]
        g = derivative[:, t] * d_spike
        d_threshold -= g
        if g_potential is not None:
            g = g + g_potential[:, t]
        g_v[:, t] = g
        at_step = d_feedback - g.unsqueeze(1)
        d_feedback = decay * at_step
        d_spike = torch.zeros_like(spike) if detach_reset else (strength * at_step).sum(1)
        recurrent = through_current(t, g)
        if recurrent is not None:
            d_spike = d_spike + recurrent
    d_decay, d_strength = _feedback_parameter_gradient(
        g_v, g_feedback, previous_steps(spikes, spike), feedback_decay, feedback_strength, feedback
    )
    return g_v, d_threshold.sum(1), d_decay, d_strength, d_feedback, d_spike
